import { createHmac } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../../config/config.js';
import { hintOf, mintSecret, type SecretKind as ValueKind } from '../../kernel/secret-value.js';
import { Keyring } from '../../keyring/keyring.js';
import type { Credential } from './credential.entity.js';
import type {
  CredentialFacts,
  CredentialKind,
  CredentialSettings,
  CredentialView,
  JsonRow,
  Minted,
} from './credential-kind.js';

export interface SecretFacts extends CredentialFacts {
  hash: Buffer;
  hashKeyId: string;
}

export interface SecretView extends CredentialView {
  hint: string;
  /** In the answer that made it, and never again. */
  secret?: string;
}

/** A new secret value, and of it what is stored: a keyed hash that names its key. */
export function mintHashed(kind: ValueKind, id: string, keyring: Keyring, config: Config) {
  const prefix = { word: config.CREDENTIAL_PREFIX, environment: config.ENVIRONMENT };
  const value = mintSecret(kind, prefix, id);
  const key = keyring.active('credential-hash');
  const hash = createHmac('sha256', key.secret).update(value).digest();
  return { value, columns: { hint: hintOf(value), hash, hashKeyId: key.id } };
}

/** A client secret (RFC 6749 §2.3.1). What is stored is a keyed hash; the secret itself is in one response and never again. */
@Injectable()
export class SecretKind implements CredentialKind<CredentialSettings, SecretView> {
  readonly name = 'secret';
  readonly created = 'service_account.secret.created';
  readonly revoked = 'service_account.secret.revoked';
  readonly oneTime = ['secret'];

  constructor(
    private readonly keyring: Keyring,
    private readonly config: Config,
  ) {}

  get limit(): number {
    return this.config.MAX_SECRETS_PER_ACCOUNT;
  }

  mint(id: string): Minted<SecretView> {
    const { value, columns } = mintHashed('sec', id, this.keyring, this.config);
    return { columns, shown: { secret: value } };
  }

  hintOf({ hint }: Credential): string {
    return `…${hint}`;
  }

  view({ hint }: Credential): Partial<SecretView> {
    return { hint: hint! };
  }

  facts(row: JsonRow) {
    const { hash, hash_key_id: hashKeyId } = row as { hash: string; hash_key_id: string };
    return { hash: Buffer.from(hash.slice('\\x'.length), 'hex'), hashKeyId };
  }
}
