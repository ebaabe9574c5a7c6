import { createHmac, timingSafeEqual } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { Config } from '../config/config.js';
import type { Held } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { publicId } from '../kernel/ids.js';
import { parseSecret } from '../kernel/secret-value.js';
import { Keyring } from '../keyring/keyring.js';
import { type OrganizationFacts, Organizations } from '../organizations/organizations.service.js';
import { Directory } from '../revocation/directory.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';
import { accountIdOf, clientIdOf } from './service-account.entity.js';

/** What is known in memory of a credential. `expiresAt`: ms since the Unix epoch. */
export interface CredentialFacts {
  id: string;
  expiresAt: number | null;
  revoked: boolean;
}

interface SecretFacts extends CredentialFacts {
  hash: Buffer;
  hashKeyId: string;
}

/** What is known in memory of a service account: all that issuing a token and attributing a call needs. */
export interface Client {
  id: string;
  clientId: string;
  organizationId: string;
  name: string;
  scopes: readonly string[];
  tokenFormat: string;
  tokenTtlSeconds: number;
  /** Null: every method. */
  clientAuthMethods: readonly string[] | null;
  disabled: boolean;
  deleted: boolean;
  epoch: number;
  /** By public id. Those revoked of late are among them, so that the log can say that one is still in use. */
  secrets: ReadonlyMap<string, SecretFacts>;
}

/** A client and its organization, as they are now, and the credential that it proved to hold. */
export interface AuthenticatedClient {
  client: Client;
  organization: OrganizationFacts;
  credential: CredentialFacts;
  /** All that a token issued now hangs on, with the present epochs. */
  holds: readonly Held[];
}

/** Why a client is not accepted. The caller is told one thing for all of them but `environment`; the audit log is told this. */
export type Refusal =
  | 'unknown_client'
  | 'wrong_secret'
  | 'revoked_secret'
  | 'expired_secret'
  | 'disabled_account'
  | 'deleted_account'
  | 'disabled_organization'
  | 'other_environment';

export interface Refused {
  refused: Refusal;
  /** The account that was claimed, when it exists. */
  client?: Client;
  /** Only where the secret was the right one. */
  credentialId?: string;
}

const NO_HASH = Buffer.alloc(32);

/** The in-memory directory of service accounts and their credentials. One lookup by id, one keyed hash, however many secrets. */
@Injectable()
export class Clients {
  private readonly directory: Directory<Client>;

  constructor(
    private readonly database: DataSource,
    private readonly organizations: Organizations,
    private readonly keyring: Keyring,
    private readonly clock: Clock,
    private readonly config: Config,
    feed: RevocationFeed,
  ) {
    this.directory = new Directory((id) => this.load(id), 50_000);
    feed.onEntries((entries, blind) => {
      if (blind) this.directory.clear();
      for (const { kind, subject_id } of entries) {
        if (kind === 'service_account') this.directory.forget(subject_id);
        if (kind === 'secret') this.directory.forgetWhere(({ secrets }) => secrets.has(publicId(subject_id)));
      }
    });
  }

  /** An account by its id, from memory if it is there. */
  byId(id: string): Client | undefined | Promise<Client | undefined> {
    return this.directory.get(id);
  }

  /**
   * Whether `secret` is a live secret of the client. An unknown client costs the same keyed hash as a known one.
   * It reads only what the directory holds of the claimed client: another's secret is not even looked at.
   */
  async proveSecret(clientId: string, secret: string): Promise<AuthenticatedClient | Refused> {
    const id = accountIdOf(clientId);
    const client = id && (await this.directory.get(id));
    const parsed = parseSecret(secret);
    const facts = client && parsed?.kind === 'sec' ? client.secrets.get(parsed.credential) : undefined;
    const key = (facts && this.keyring.byId(facts.hashKeyId)) ?? this.keyring.active('credential-hash');
    const hash = createHmac('sha256', key.secret).update(secret).digest();
    const right = timingSafeEqual(hash, facts?.hash ?? NO_HASH) && facts !== undefined;

    if (parsed && parsed.environment !== this.config.ENVIRONMENT)
      return { refused: 'other_environment', client: client || undefined };
    if (!client) return { refused: 'unknown_client' };
    if (!right) return { refused: 'wrong_secret', client };
    return this.admit(client, facts);
  }

  /** The rest of the decision, the same for every kind of credential: is what was proved still good. */
  private async admit(client: Client, credential: CredentialFacts): Promise<AuthenticatedClient | Refused> {
    const refuse = (refused: Refusal): Refused => ({ refused, client, credentialId: credential.id });
    if (credential.revoked) return refuse('revoked_secret');
    if (credential.expiresAt !== null && credential.expiresAt <= this.clock.now()) return refuse('expired_secret');
    if (client.deleted) return refuse('deleted_account');
    if (client.disabled) return refuse('disabled_account');
    const organization = await this.organizations.facts(client.organizationId);
    if (!organization || organization.disabled) return refuse('disabled_organization');
    return { client, organization, credential, holds: holdsOf(organization, client, credential.id) };
  }

  private async load(id: string): Promise<Client | undefined> {
    const [row] = await this.database.query(LOAD, [id, this.config.MAX_SECRETS_PER_ACCOUNT + 100]);
    if (!row) return undefined;
    const secrets = (row.secrets as SecretRow[]).map((secret): [string, SecretFacts] => [
      publicId(secret.id),
      {
        id: secret.id,
        hash: Buffer.from(secret.hash, 'hex'),
        hashKeyId: secret.hash_key_id,
        expiresAt: secret.expires_at,
        revoked: secret.epoch > 0,
      },
    ]);
    return {
      id: row.id,
      clientId: clientIdOf(row.id),
      organizationId: row.organization_id,
      name: row.name,
      scopes: row.scopes,
      tokenFormat: row.token_format,
      tokenTtlSeconds: row.token_ttl_seconds,
      clientAuthMethods: row.client_auth_methods,
      disabled: row.disabled,
      deleted: row.deleted,
      epoch: row.epoch,
      secrets: new Map(secrets),
    };
  }
}

/** What a token of this account hangs on. A credential is revoked once and for all, so its epoch at issue is always 0. */
export const holdsOf = (
  organization: { id: string; epoch: number },
  client: { id: string; epoch: number },
  credentialId: string,
): Held[] => [
  { id: organization.id, epoch: organization.epoch },
  { id: client.id, epoch: client.epoch },
  { id: credentialId, epoch: 0 },
];

interface SecretRow {
  id: string;
  hash: string;
  hash_key_id: string;
  expires_at: number | null;
  epoch: number;
}

/** Account, epoch and secrets in one statement, so as of one moment. The live secrets come first. */
const LOAD = `
  SELECT a.id, a.organization_id, a.name, a.scopes, a.token_format, a.token_ttl_seconds, a.client_auth_methods,
         a.disabled_at IS NOT NULL AS disabled, a.deleted_at IS NOT NULL AS deleted, r.epoch,
         (SELECT coalesce(json_agg(s), '[]') FROM (
            SELECT s.id, encode(s.hash, 'hex') AS hash, s.hash_key_id, extract(epoch FROM s.expires_at) * 1000 AS expires_at, sr.epoch
              FROM secret AS s JOIN revocable AS sr ON sr.id = s.id
             WHERE s.organization_id = a.organization_id AND s.service_account_id = a.id
             ORDER BY s.revoked_at DESC NULLS FIRST LIMIT $2) AS s) AS secrets
    FROM service_account AS a JOIN revocable AS r ON r.id = a.id
   WHERE a.id = $1`;
