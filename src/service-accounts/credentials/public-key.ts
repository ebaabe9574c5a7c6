import { constants, createPublicKey, type JsonWebKey, type KeyObject, verify } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../../config/config.js';
import type { Credential } from './credential.entity.js';
import type {
  CredentialFacts,
  CredentialKind,
  CredentialSettings,
  CredentialView,
  JsonRow,
  Minted,
} from './credential-kind.js';
import { type GivenKey, type KeyAlgorithm, type PublicJwk, readPublicKey } from './read-public-key.js';

export interface PublicKeySettings extends CredentialSettings, GivenKey {}

export interface PublicKeyView extends CredentialView {
  kid: string;
  alg: KeyAlgorithm;
  jwk: PublicJwk & { kid: string; use: 'sig'; alg: KeyAlgorithm };
}

export interface PublicKeyFacts extends CredentialFacts {
  algorithm: KeyAlgorithm;
  key: KeyObject;
  /** What a `kid` may call it: its thumbprint, its id here, the `kid` that it came with. */
  names: readonly string[];
}

/** A public key whose private half signs a client's assertions (RFC 7523). Nothing of it is secret. */
@Injectable()
export class PublicKeyKind implements CredentialKind<PublicKeySettings, PublicKeyView> {
  readonly name = 'public_key';
  readonly created = 'service_account.key.created';
  readonly revoked = 'service_account.key.revoked';
  readonly oneTime = [];

  constructor(private readonly config: Config) {}

  get limit(): number {
    return this.config.MAX_KEYS_PER_ACCOUNT;
  }

  mint(_id: string, given: PublicKeySettings): Minted<PublicKeyView> {
    const { jwk, algorithm, thumbprint } = readPublicKey(given);
    return { columns: { publicJwk: jwk, algorithm, kid: thumbprint }, shown: {} };
  }

  hintOf({ algorithm, kid }: Credential): string {
    return `${algorithm} ${kid!.slice(0, 8)}…`;
  }

  view({ publicJwk, algorithm, kid }: Credential): Partial<PublicKeyView> {
    return { kid: kid!, alg: algorithm!, jwk: { kid: kid!, ...publicJwk!, use: 'sig', alg: algorithm! } };
  }

  facts(row: JsonRow) {
    const { id, kid: thumbprint, public_jwk, algorithm } = row as Record<'id' | 'kid', string> & JsonRow;
    const { kid, ...members } = public_jwk as PublicJwk;
    return {
      algorithm: algorithm as KeyAlgorithm,
      key: createPublicKey({ key: members as JsonWebKey, format: 'jwk' }),
      names: [thumbprint, id, ...(kid === undefined ? [] : [kid])],
    };
  }
}

const RAW_SIGNATURE_OCTETS = 64;

/** RFC 7518 §3, RFC 8037 §3.1: how each algorithm verifies. OpenSSL refuses r and s out of range, and S that is not reduced. */
const VERIFY: Record<KeyAlgorithm, (data: Buffer, key: KeyObject, signature: Buffer) => boolean> = {
  EdDSA: (data, key, signature) => signature.length === RAW_SIGNATURE_OCTETS && verify(null, data, key, signature),
  // r and s side by side: a signature in DER is none (RFC 7518 §3.4).
  ES256: (data, key, signature) =>
    signature.length === RAW_SIGNATURE_OCTETS && verify('sha256', data, { key, dsaEncoding: 'ieee-p1363' }, signature),
  PS256: (data, key, signature) => verify('sha256', data, { key, ...PSS }, signature),
  RS256: (data, key, signature) => verify('sha256', data, { key, padding: constants.RSA_PKCS1_PADDING }, signature),
};
const PSS = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };

/** Whether the key signed the data, by the one algorithm that it is registered for. */
export const verifies = ({ algorithm, key }: PublicKeyFacts, data: Buffer, signature: Buffer): boolean =>
  VERIFY[algorithm](data, key, signature);
