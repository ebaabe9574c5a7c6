import { createHmac, timingSafeEqual } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { Config } from '../../config/config.js';
import { fromPublicId } from '../../kernel/ids.js';
import { parseSecret } from '../../kernel/secret-value.js';
import { Keyring } from '../../keyring/keyring.js';
import { Directory } from '../../revocation/directory.js';
import { RevocationFeed } from '../../revocation/revocation-feed.js';
import { Credential } from './credential.entity.js';
import type { CredentialKind, CredentialSettings, CredentialView, Minted } from './credential-kind.js';
import { mintHashed } from './secret.js';

export interface PersonalAccessTokenSettings extends CredentialSettings {
  expiresAt: Date;
  scopes: readonly string[];
  era: number;
  /** Of the organization and of the owner. */
  epochs: readonly [number, number];
}

export interface PersonalAccessTokenView extends CredentialView {
  hint: string;
  scopes: string[];
  expires_at: Date;
  /** In the answer that made it, and never again. */
  token?: string;
}

const NO_HASH = Buffer.alloc(32);

/**
 * A bearer token whose claims stand in a row instead of in its text. It lives for up to a year, longer than the feed remembers a
 * revocation: so its row is asked, from memory, at every use.
 */
@Injectable()
export class PersonalAccessTokenKind implements CredentialKind<PersonalAccessTokenSettings, PersonalAccessTokenView> {
  readonly name = 'personal_access_token';
  readonly created = 'personal_access_token.created';
  readonly revoked = 'personal_access_token.revoked';
  readonly oneTime = ['token'];
  private readonly directory: Directory<Credential>;

  constructor(
    private readonly database: DataSource,
    private readonly keyring: Keyring,
    private readonly config: Config,
    feed: RevocationFeed,
  ) {
    this.directory = new Directory((id) => this.load(id), 50_000);
    feed.onEntries((entries, blind) => {
      if (blind) this.directory.clear();
      for (const { kind, subject_id } of entries) if (kind === this.name) this.directory.forget(subject_id);
    });
  }

  get limit(): number {
    return this.config.MAX_PERSONAL_ACCESS_TOKENS;
  }

  mint(id: string, { scopes, era, epochs }: PersonalAccessTokenSettings): Minted<PersonalAccessTokenView> {
    const { value, columns } = mintHashed('pat', id, this.keyring, this.config);
    return { columns: { ...columns, scopes: [...scopes], era, epochs: [...epochs] }, shown: { token: value } };
  }

  hintOf({ hint }: Credential): string {
    return `…${hint}`;
  }

  view({ hint, scopes }: Credential): Partial<PersonalAccessTokenView> {
    return { hint: hint!, scopes: scopes! };
  }

  /**
   * The row of a presented token; undefined when it is none of ours. A wrong checksum costs no lookup. An id that is nobody's costs
   * the same keyed hash as one that is somebody's.
   */
  prove(text: string): Credential | undefined | Promise<Credential | undefined> {
    const parsed = parseSecret(text);
    const id = parsed?.kind === 'pat' ? fromPublicId(parsed.credential) : undefined;
    if (id === undefined) return undefined;
    const found = this.directory.get(id);
    return found instanceof Promise
      ? found.then((credential) => this.compare(text, credential))
      : this.compare(text, found);
  }

  private compare(text: string, credential: Credential | undefined): Credential | undefined {
    const key = (credential && this.keyring.byId(credential.hashKeyId!)) ?? this.keyring.active('credential-hash');
    const hash = createHmac('sha256', key.secret).update(text).digest();
    return timingSafeEqual(hash, credential?.hash ?? NO_HASH) ? credential : undefined;
  }

  private async load(id: string): Promise<Credential | undefined> {
    const query = this.database
      .getRepository(Credential)
      .createQueryBuilder('c')
      .addSelect(['c.hash', 'c.hashKeyId'])
      .where('c.id = :id AND c.kind = :kind', { id, kind: this.name });
    return (await query.getOne()) ?? undefined;
  }
}
