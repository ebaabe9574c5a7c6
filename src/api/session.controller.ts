import { Body, Controller, Delete, Get, HttpCode, Param, Patch, Post, Query, Res } from '@nestjs/common';
import {
  ApiCreatedResponse,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiProperty,
  ApiTags,
} from '@nestjs/swagger';
import { IsString, IsUUID, MaxLength } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, CurrentRequest, EvenOverLimit, Public, SignedIn } from '../access/access.js';
import { PageQuery, page } from '../access/page.js';
import { clearSessionCookie, setSessionCookie } from '../access/session-cookie.js';
import { Config } from '../config/config.js';
import type { Caller, RequestInfo } from '../kernel/actor.js';
import { ROLES, type Role } from '../kernel/scope.js';
import { Cursors } from '../keyring/cursors.js';
import type { MembershipStatus } from '../organizations/membership.entity.js';
import { type SessionCaller, Sessions, type SessionView } from '../organizations/sessions.service.js';
import { SignIn } from '../organizations/sign-in.service.js';
import { MAX_EMAIL_LENGTH } from '../organizations/user.entity.js';

export class SignInRequest {
  @IsString()
  @MaxLength(MAX_EMAIL_LENGTH)
  email: string;

  @IsString()
  @MaxLength(1024)
  password: string;
}

export class ReauthenticateRequest {
  @IsString()
  @MaxLength(1024)
  password: string;
}

export class SwitchOrganizationRequest {
  /** One of `organizations`; for platform admins, any. Turning to one for the first time accepts its invitation. */
  @IsUUID()
  organization_id: string;
}

class SessionUser {
  id: string;
  email: string;
  name: string;
}

class SessionOrganization {
  id: string;
  name: string;
}

class SessionMembership extends SessionOrganization {
  @ApiProperty({ enum: [...ROLES] })
  role: Role;

  @ApiProperty({ enum: ['active', 'invited', 'disabled'] })
  status: MembershipStatus;
}

/** Who one is, and for which organization. */
export class CurrentSession {
  user: SessionUser;
  organization: SessionOrganization;

  @ApiProperty({ enum: [...ROLES] })
  role: Role;

  /** What may be done here: the role's scopes within the organization's ceiling; none while the password must be changed. */
  scopes: string[];

  /** Memberships and invitations. */
  organizations: SessionMembership[];

  /** When the person last proved who they are. */
  authenticated_at: Date;

  /** When the session ends whatever happens; without use for 30 minutes it ends sooner. */
  expires_at: Date;

  must_change_password: boolean;
}

export class SessionItem {
  id: string;
  organization_id: string;
  address: string | null;
  user_agent: string | null;
  created_at: Date;
  last_seen_at: Date;
  expires_at: Date;

  /** Whether it is the one that asks. */
  current: boolean;
}

export class SessionList {
  data: SessionItem[];
  next_cursor: string | null;
}

@ApiTags('Sessions')
@Controller('api/v1')
export class SessionController {
  constructor(
    private readonly sessions: Sessions,
    private readonly signIn: SignIn,
    private readonly cursors: Cursors,
    private readonly config: Config,
  ) {}

  @Post('session')
  @Public()
  @ApiOperation({ operationId: 'signIn', summary: 'Sign in', description: 'Sets the session cookie.' })
  @ApiCreatedResponse({ type: CurrentSession })
  async create(
    @Body() body: SignInRequest,
    @CurrentRequest() request: RequestInfo,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<CurrentSession> {
    const { cookie, session } = await this.signIn.signIn(body, request);
    setSessionCookie(reply, this.config, cookie);
    return currentSession(session);
  }

  @Get('session')
  @SignedIn()
  @ApiOperation({ operationId: 'getSession', summary: 'Who am I, and for which organization' })
  @ApiOkResponse({ type: CurrentSession })
  async get(@CurrentCaller() caller: SessionCaller): Promise<CurrentSession> {
    return currentSession(await this.sessions.describe(caller));
  }

  @Patch('session')
  @SignedIn()
  @ApiOperation({
    operationId: 'switchOrganization',
    summary: 'Turn to another organization',
    description: 'Renews the session cookie.',
  })
  @ApiOkResponse({ type: CurrentSession })
  async switch(
    @CurrentCaller() caller: SessionCaller,
    @Body() body: SwitchOrganizationRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<CurrentSession> {
    const { cookie, session } = await this.sessions.switchOrganization(caller, body.organization_id);
    setSessionCookie(reply, this.config, cookie);
    return currentSession(session);
  }

  @Delete('session')
  @EvenOverLimit()
  @SignedIn()
  @HttpCode(204)
  @ApiOperation({ operationId: 'signOut', summary: 'Sign out' })
  @ApiNoContentResponse()
  async delete(@CurrentCaller() caller: SessionCaller, @Res({ passthrough: true }) reply: FastifyReply): Promise<void> {
    await this.sessions.end(caller, caller.credential.id);
    clearSessionCookie(reply, this.config);
  }

  @Post('session/reauthenticate')
  @SignedIn()
  @HttpCode(200)
  @ApiOperation({
    operationId: 'reauthenticate',
    summary: 'Prove again who you are',
    description: 'For what needs it within ten minutes. Renews the session cookie.',
  })
  @ApiOkResponse({ type: CurrentSession })
  async reauthenticate(
    @CurrentCaller() caller: SessionCaller,
    @Body() body: ReauthenticateRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<CurrentSession> {
    const { cookie, session } = await this.signIn.reauthenticate(caller, body.password);
    setSessionCookie(reply, this.config, cookie);
    return currentSession(session);
  }

  @Get('sessions')
  @SignedIn()
  @ApiOperation({ operationId: 'listSessions', summary: 'Where you are signed in' })
  @ApiOkResponse({ type: SessionList })
  list(@CurrentCaller() caller: Caller, @Query() query: PageQuery): Promise<SessionList> {
    return page(this.cursors, { route: 'sessions', user: caller.actor.id }, query, async (limit, before) => {
      const sessions = await this.sessions.list(caller, limit, before?.[0]);
      return sessions.map((session) => ({
        id: session.id,
        organization_id: session.organizationId,
        address: session.address,
        user_agent: session.userAgent,
        created_at: session.createdAt,
        last_seen_at: session.lastSeenAt,
        expires_at: session.expiresAt,
        current: session.id === caller.credential.id,
      }));
    });
  }

  @Delete('sessions/:id')
  @EvenOverLimit()
  @SignedIn()
  @HttpCode(204)
  @ApiOperation({ operationId: 'endSession', summary: 'End one of your sessions' })
  @ApiNoContentResponse()
  async end(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<void> {
    await this.sessions.end(caller, id);
  }
}

const currentSession = (session: SessionView): CurrentSession => ({
  user: session.user,
  organization: session.organization,
  role: session.role,
  scopes: session.scopes,
  organizations: session.organizations,
  authenticated_at: session.authenticatedAt,
  expires_at: session.expiresAt,
  must_change_password: session.mustChangePassword,
});
