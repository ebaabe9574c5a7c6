import QuickLRU from 'quick-lru';
import {
  Check,
  Column,
  CreateDateColumn,
  Entity,
  ForeignKey,
  Index,
  PrimaryColumn,
  Unique,
  UpdateDateColumn,
} from 'typeorm';
import { fromPublicId, publicId } from '../kernel/ids.js';
import { Organization } from '../organizations/organization.entity.js';

const CLIENT_ID_PREFIX = 'sa_';

/** The OAuth client id of an account: letters, digits and `_`, derived from its id and so never used again. */
export const clientIdOf = (accountId: string) => CLIENT_ID_PREFIX + publicId(accountId);

const accountIds = new QuickLRU<string, string>({ maxSize: 50_000 });

/** The account id of a client id; undefined when the text has not that form. Remembers, as base 62 is slow to read. */
export function accountIdOf(clientId: string): string | undefined {
  let id = accountIds.get(clientId);
  if (id !== undefined) return id;
  id = clientId.startsWith(CLIENT_ID_PREFIX) ? fromPublicId(clientId.slice(CLIENT_ID_PREFIX.length)) : undefined;
  if (id !== undefined) accountIds.set(clientId, id);
  return id;
}

@Entity('service_account')
@Unique('service_account_id_key', ['id'])
@Index('service_account_created_at_idx', ['organizationId', 'createdAt', 'id'])
@Index('service_account_name_idx', ['organizationId', 'name', 'id'])
@Index('service_account_name_key', { synchronize: false }) // on lower(name) of the living: an expression that TypeORM cannot state
@Check('service_account_token_ttl_seconds_check', 'token_ttl_seconds BETWEEN 60 AND 86400')
export class ServiceAccount {
  @ForeignKey(() => Organization, { name: 'service_account_organization_id_fkey' })
  @PrimaryColumn({ name: 'organization_id', type: 'uuid', primaryKeyConstraintName: 'service_account_pkey' })
  organizationId: string;

  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'service_account_pkey' })
  id: string;

  @Column({ type: 'text' })
  name: string;

  @Column({ type: 'text', default: '' })
  description: string;

  @Column({ type: 'text', array: true })
  scopes: string[];

  @Column({ name: 'token_format', type: 'text' })
  tokenFormat: string;

  @Column({ name: 'token_ttl_seconds', type: 'integer' })
  tokenTtlSeconds: number;

  /** Null: every method that the server speaks. */
  @Column({ name: 'client_auth_methods', type: 'text', array: true, nullable: true })
  clientAuthMethods: string[] | null;

  /** RFC 8707: audiences beside the platform's own that it may ask tokens for. */
  @Column({ type: 'text', array: true, default: [] })
  resources: string[];

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;

  @UpdateDateColumn({ name: 'updated_at', type: 'timestamptz', default: () => 'now()' })
  updatedAt: Date;

  @Column({ name: 'disabled_at', type: 'timestamptz', nullable: true })
  disabledAt: Date | null;

  @Column({ name: 'deleted_at', type: 'timestamptz', nullable: true })
  deletedAt: Date | null;

  get clientId(): string {
    return clientIdOf(this.id);
  }

  get target() {
    return { type: 'service_account', id: this.id, name: this.name };
  }
}
