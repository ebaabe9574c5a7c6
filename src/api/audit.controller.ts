import { Controller, Get, Param, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiProperty, ApiTags } from '@nestjs/swagger';
import { IsIn, IsString, IsUUID, MaxLength } from 'class-validator';
import { CurrentCaller, RequireScopes } from '../access/access.js';
import { IsInstant, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { AUDIT_ACTIONS, type AuditAction, type AuditEvent, type AuditFilter } from '../audit/audit-event.js';
import { AuditLog } from '../audit/audit-log.js';
import type { Actor, Caller } from '../kernel/actor.js';
import { isUuid } from '../kernel/ids.js';
import { problem } from '../kernel/problem.js';
import { Cursors } from '../keyring/cursors.js';
import { type PublishedRevocation, Revocations } from '../revocation/revocations.js';

const ACTIONS = Object.keys(AUDIT_ACTIONS) as AuditAction[];

export class AuditQuery extends PageQuery {
  /** The name that the actor had at that moment. */
  @Omittable()
  @IsString()
  @MaxLength(256)
  actor_name?: string;

  @Omittable()
  @IsUUID()
  actor_id?: string;

  @Omittable()
  @IsIn(ACTIONS)
  action?: AuditAction;

  @Omittable()
  @IsIn(['success', 'failure'])
  outcome?: 'success' | 'failure';

  @Omittable()
  @IsString()
  @MaxLength(128)
  target_id?: string;

  @Omittable()
  @IsUUID()
  credential_id?: string;

  @Omittable()
  @IsString()
  @MaxLength(128)
  request_id?: string;

  /** Inclusive. RFC 3339. */
  @Omittable()
  @IsInstant()
  from?: string;

  /** Exclusive. RFC 3339. */
  @Omittable()
  @IsInstant()
  to?: string;
}

export class ActorView {
  @ApiProperty({ enum: ['service_account', 'user', 'anonymous', 'system'] })
  type: string;
  id: string | null;
  name: string;
  organization_id: string;
}

export class TargetView {
  type: string;
  id: string;
  name: string;
}

export class AuditEventView {
  id: string;
  occurred_at: Date;
  @ApiProperty({
    enum: ACTIONS,
    description: Object.entries(AUDIT_ACTIONS)
      .map(([name, text]) => `\`${name}\`: ${text}.`)
      .join(' '),
  })
  action: string;
  @ApiProperty({ enum: ['success', 'failure'] })
  outcome: string;
  reason: string | null;
  /** Who did it, under the name of that moment. */
  actor: ActorView;
  /** The person for whom a client acted under their consent; null when the actor acted for itself. */
  on_behalf_of: ActorView | null;
  credential_id: string | null;
  /** The access token's `jti`. */
  token_id: string | null;
  targets: TargetView[];
  /** By field: `from`, `to`. */
  @ApiProperty({ type: 'object', additionalProperties: true, nullable: true })
  changes: object | null;
  request_id: string;
  address: string | null;
  user_agent: string | null;
}

export class AuditEventPage {
  data: AuditEventView[];
  next_cursor: string | null;
}

export class RevokerView {
  type: string;
  id: string | null;
  name: string;
}

export class RevocationView {
  id: string;
  kind: string;
  subject_id: string;
  subject_name: string;
  reason: string | null;
  revoked_by: RevokerView;
  revoked_at: Date;
  /** From then on every token from before has expired. */
  matters_until: Date;
}

export class RevocationPage {
  data: RevocationView[];
  next_cursor: string | null;
}

@ApiTags('Audit')
@Controller('api/v1')
@RequireScopes('audit:read')
export class AuditController {
  constructor(
    private readonly audit: AuditLog,
    private readonly revocations: Revocations,
    private readonly cursors: Cursors,
  ) {}

  @Get('audit-events')
  @ApiOperation({
    operationId: 'listAuditEvents',
    summary: 'Search the audit log',
    description: 'Newest first. Filters may be combined.',
  })
  @ApiOkResponse({ type: AuditEventPage })
  events(@CurrentCaller() caller: Caller, @Query() query: AuditQuery): Promise<AuditEventPage> {
    const { limit: _limit, cursor: _cursor, ...filters } = query;
    const list = { route: 'audit-events', organization: caller.organizationId, filters };
    const filter: AuditFilter = {
      actorName: query.actor_name,
      actorId: query.actor_id,
      action: query.action,
      outcome: query.outcome,
      targetId: query.target_id,
      credentialId: query.credential_id,
      requestId: query.request_id,
      from: query.from === undefined ? undefined : new Date(query.from),
      to: query.to === undefined ? undefined : new Date(query.to),
    };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.audit.list(caller.organizationId, filter, limit, after?.[0])).map(eventView),
    );
  }

  @Get('audit-events/:id')
  @ApiOperation({ operationId: 'getAuditEvent', summary: 'Read an event' })
  @ApiOkResponse({ type: AuditEventView })
  async event(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<AuditEventView> {
    const event = isUuid(id) ? await this.audit.find(caller.organizationId, id) : undefined;
    if (!event) throw problem('not_found');
    return eventView(event);
  }

  @Get('revocations')
  @ApiOperation({
    operationId: 'listRevocations',
    summary: 'The revocation list',
    description: 'What was revoked, when, by whom, and until when it matters; newest first.',
  })
  @ApiOkResponse({ type: RevocationPage })
  revocationList(@CurrentCaller() caller: Caller, @Query() query: PageQuery): Promise<RevocationPage> {
    const list = { route: 'revocations', organization: caller.organizationId };
    const fetch = async (limit: number, after: readonly string[] | undefined) =>
      (await this.revocations.list(caller.organizationId, limit, after && Number(after[0]))).map(revocationView);
    return page(this.cursors, list, query, fetch);
  }
}

const actorView = ({ type, id, name, organizationId }: Actor): ActorView => ({
  type,
  id,
  name,
  organization_id: organizationId,
});

const eventView = (event: AuditEvent): AuditEventView => ({
  id: event.id,
  occurred_at: event.occurredAt,
  action: event.action,
  outcome: event.outcome,
  reason: event.reason,
  actor: actorView(event.actor),
  on_behalf_of: event.onBehalfOf && actorView(event.onBehalfOf),
  credential_id: event.credentialId,
  token_id: event.tokenId,
  targets: event.targets,
  changes: event.changes,
  request_id: event.requestId,
  address: event.address,
  user_agent: event.userAgent,
});

const revocationView = (revocation: PublishedRevocation): RevocationView => ({
  id: String(revocation.id),
  kind: revocation.kind,
  subject_id: revocation.subjectId,
  subject_name: revocation.subjectName,
  reason: revocation.reason,
  revoked_by: revocation.actor,
  revoked_at: revocation.revokedAt,
  matters_until: revocation.mattersUntil,
});
