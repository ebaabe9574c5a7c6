import { createHmac, timingSafeEqual } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import type { SingleUse } from '../changes/single-use.js';
import { Config } from '../config/config.js';
import type { Actor, CredentialType, Holds } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { publicId } from '../kernel/ids.js';
import { parseSecret } from '../kernel/secret-value.js';
import { Keyring } from '../keyring/keyring.js';
import { type OrganizationFacts, Organizations } from '../organizations/organizations.service.js';
import { Directory } from '../revocation/directory.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';
import type { CredentialFacts, CredentialKind, JsonRow } from './credentials/credential-kind.js';
import { type PublicKeyFacts, verifies } from './credentials/public-key.js';
import type { KeyAlgorithm } from './credentials/read-public-key.js';
import type { SecretFacts } from './credentials/secret.js';
import { accountIdOf, clientIdOf } from './service-account.entity.js';

export const KINDS = Symbol('credential kinds');

/** What is known in memory of a service account: all that issuing a token and attributing a call needs. */
export interface Client {
  id: string;
  clientId: string;
  organizationId: string;
  name: string;
  /** The account as the actor of an event, under its present name. */
  actor: Actor & { id: string };
  scopes: readonly string[];
  tokenFormat: string;
  tokenTtlSeconds: number;
  /** Null: every method. */
  clientAuthMethods: readonly string[] | null;
  /** Audiences that it is set to; those that the platform has dropped since are still among them. */
  resources: readonly string[];
  disabled: boolean;
  deleted: boolean;
  epoch: number;
  /** By public id. Those revoked of late are among them, so that the log can say that one is still in use. */
  credentials: ReadonlyMap<string, CredentialFacts>;
}

/** A client and its organization, as they are now, and the credential that it proved to hold. */
export interface AuthenticatedClient {
  client: Client;
  organization: OrganizationFacts;
  credential: CredentialFacts;
  /** All that a token issued now hangs on, with the present epochs. */
  holds: Holds;
  /** Set when the proof is good for one request. Whoever answers the request must consume it. */
  once?: SingleUse;
}

/** Why a client is not accepted. The caller is told one thing for all of them but `environment`; the audit log is told this. */
export type Refusal =
  | 'unknown_client'
  | 'wrong_secret'
  | 'unknown_key'
  | 'wrong_signature'
  | `revoked_${CredentialType}`
  | `expired_${CredentialType}`
  | 'disabled_account'
  | 'deleted_account'
  | 'disabled_organization'
  | 'other_environment';

export interface Refused {
  refused: Refusal;
  /** The account that was claimed, when it exists. */
  client?: Client;
  /** Only where the secret or the signature was the right one. */
  credentialId?: string;
}

const NO_HASH = Buffer.alloc(32);
const REVOKED_KEYS_TRIED = 3;

/** The in-memory directory of service accounts and their credentials. One lookup by id, one keyed hash, however many secrets. */
@Injectable()
export class Clients {
  private readonly directory: Directory<Client>;
  private readonly admitted = new WeakMap<CredentialFacts, AuthenticatedClient>();
  /** Those that a client authenticates with. */
  private readonly kinds: readonly Required<CredentialKind>[];

  constructor(
    @Inject(KINDS) kinds: readonly CredentialKind[],
    private readonly database: DataSource,
    private readonly organizations: Organizations,
    private readonly keyring: Keyring,
    private readonly clock: Clock,
    private readonly config: Config,
    feed: RevocationFeed,
  ) {
    this.kinds = kinds.filter((kind): kind is Required<CredentialKind> => kind.facts !== undefined);
    this.directory = new Directory((id) => this.load(id), 50_000);
    feed.onEntries((entries, blind) => {
      if (blind) this.directory.clear();
      for (const { kind, subject_id } of entries) {
        if (kind === 'service_account') this.directory.forget(subject_id);
        if (this.kinds.some(({ name }) => name === kind))
          this.directory.forgetWhere(({ credentials }) => credentials.has(publicId(subject_id)));
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
    const found = id && this.directory.get(id);
    const client = found instanceof Promise ? await found : found;
    const parsed = parseSecret(secret);
    const known = client && parsed?.kind === 'sec' ? client.credentials.get(parsed.credential) : undefined;
    const facts = known?.kind === 'secret' ? (known as SecretFacts) : undefined;
    const key = (facts && this.keyring.byId(facts.hashKeyId)) ?? this.keyring.active('credential-hash');
    const hash = createHmac('sha256', key.secret).update(secret).digest();
    const right = timingSafeEqual(hash, facts?.hash ?? NO_HASH) && facts !== undefined;

    if (parsed && parsed.environment !== this.config.ENVIRONMENT)
      return { refused: 'other_environment', client: client || undefined };
    if (!client) return { refused: 'unknown_client' };
    if (!right) return { refused: 'wrong_secret', client };
    return this.admit(client, facts);
  }

  /**
   * Whether `signature` is that of one of the client's keys for the algorithm. `kid` chooses among the client's own keys, and nothing
   * else. The live ones come first; so many are tried as an account can have, and a few that were revoked of late, so that the log can
   * say which is still in use.
   */
  async proveSignature(
    clientId: string,
    { kid, algorithm }: { kid: string | undefined; algorithm: KeyAlgorithm },
    data: Buffer,
    signature: Buffer,
  ): Promise<AuthenticatedClient | Refused> {
    const id = accountIdOf(clientId);
    const client = id && (await this.directory.get(id));
    if (!client) return { refused: 'unknown_client' };
    const candidates = [...client.credentials.values()]
      .filter((facts): facts is PublicKeyFacts => facts.kind === 'public_key')
      .filter((key) => key.algorithm === algorithm)
      .filter((key) => kid === undefined || key.names.includes(kid))
      .slice(0, this.config.MAX_KEYS_PER_ACCOUNT + REVOKED_KEYS_TRIED);
    if (candidates.length === 0) return { refused: 'unknown_key', client };
    const proved = candidates.find((key) => verifies(key, data, signature));
    return proved ? this.admit(client, proved) : { refused: 'wrong_signature', client };
  }

  /** The rest of the decision, the same for every kind of credential: is what was proved to be held still good. */
  admit(
    client: Client,
    credential: CredentialFacts,
  ): AuthenticatedClient | Refused | Promise<AuthenticatedClient | Refused> {
    const refuse = (refused: Refusal): Refused => ({ refused, client, credentialId: credential.id });
    if (credential.revoked) return refuse(`revoked_${credential.kind}`);
    if (credential.expiresAt !== null && credential.expiresAt <= this.clock.now())
      return refuse(`expired_${credential.kind}`);
    if (client.deleted) return refuse('deleted_account');
    if (client.disabled) return refuse('disabled_account');
    const decide = (organization: OrganizationFacts | undefined): AuthenticatedClient | Refused => {
      if (!organization || organization.disabled) return refuse('disabled_organization');
      // The facts never change: a change loads new ones. So what is computed from them holds as long as they do.
      const known = this.admitted.get(credential);
      if (known?.organization === organization && known.client === client) return known;
      const admitted = { client, organization, credential, holds: holdsOf(organization, client, credential.id) };
      this.admitted.set(credential, admitted);
      return admitted;
    };
    const facts = this.organizations.facts(client.organizationId);
    return facts instanceof Promise ? facts.then(decide) : decide(facts);
  }

  private async load(id: string): Promise<Client | undefined> {
    const most = this.kinds.reduce((sum, { limit }) => sum + limit, 100);
    const [row] = await this.database.query(LOAD, [id, most, this.kinds.map(({ name }) => name)]);
    if (!row) return undefined;
    const credentials = (row.credentials as CredentialRow[]).flatMap((credential): [string, CredentialFacts][] => {
      const kind = this.kinds.find(({ name }) => name === credential.kind);
      if (!kind) return [];
      const { id, expires_at, epoch } = credential;
      const expiresAt = expires_at === null ? null : Date.parse(expires_at);
      return [[publicId(id), { id, kind: kind.name, expiresAt, revoked: epoch > 0, ...kind.facts(credential) }]];
    });
    return {
      id: row.id,
      clientId: clientIdOf(row.id),
      organizationId: row.organization_id,
      name: row.name,
      actor: { type: 'service_account', id: row.id, name: row.name, organizationId: row.organization_id },
      scopes: row.scopes,
      tokenFormat: row.token_format,
      tokenTtlSeconds: row.token_ttl_seconds,
      clientAuthMethods: row.client_auth_methods,
      resources: row.resources,
      disabled: row.disabled,
      deleted: row.deleted,
      epoch: row.epoch,
      credentials: new Map(credentials),
    };
  }
}

/** What a token of this account hangs on. A credential is revoked only once, so its epoch at issue is always 0. */
export const holdsOf = (
  organization: { id: string; epoch: number },
  client: { id: string; epoch: number },
  credentialId: string,
): Holds => ({
  organization: { id: organization.id, epoch: organization.epoch },
  account: { id: client.id, epoch: client.epoch },
  credential: { id: credentialId, epoch: 0 },
});

interface CredentialRow extends JsonRow {
  id: string;
  kind: string;
  expires_at: string | null;
  epoch: number;
}

/** Account, epoch and credentials in one statement, so as of one moment. The live ones come first. */
const LOAD = `
  SELECT a.id, a.organization_id, a.name, a.scopes, a.token_format, a.token_ttl_seconds, a.client_auth_methods, a.resources,
         a.disabled_at IS NOT NULL AS disabled, a.deleted_at IS NOT NULL AS deleted, r.epoch,
         (SELECT coalesce(json_agg(c), '[]') FROM (
            SELECT c.*, cr.epoch
              FROM credential AS c JOIN revocable AS cr ON cr.id = c.id
             WHERE c.organization_id = a.organization_id AND c.service_account_id = a.id AND c.kind = ANY($3)
             ORDER BY c.revoked_at DESC NULLS FIRST LIMIT $2) AS c) AS credentials
    FROM service_account AS a JOIN revocable AS r ON r.id = a.id
   WHERE a.id = $1`;
