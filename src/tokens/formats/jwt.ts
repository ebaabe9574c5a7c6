import { constants, sign } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { JwtService } from '@nestjs/jwt';
import { Config } from '../../config/config.js';
import type { HoldName, Holds } from '../../kernel/actor.js';
import type { Key } from '../../keyring/keyring.js';
import { accountIdOf, clientIdOf } from '../../service-accounts/service-account.entity.js';
import type { ClientToken, SealedFormat } from '../access-token.js';

/** The private claim with the era, and the epochs at issue of all that the token hangs on. */
const EPOCHS = 'gatehouse_epochs';

type Epochs = { era: number } & Partial<Record<HoldName, number>>;
/** The claim in tokens from before its members had names. */
type UnnamedEpochs = [era: number, organization: number, account: number, credential: number];

interface Claims {
  iss: string;
  sub: string;
  client_id: string;
  aud: string | string[];
  iat: number;
  exp: number;
  jti: string;
  scope: string;
  org_id: string;
  credential_id: string;
  [EPOCHS]: Epochs | UnnamedEpochs;
  /** Under a person's grant: the grant, and the one company that it opens with that company's organization. */
  grant_id?: string;
  resource_org_id?: string;
  company_id?: string;
}

/**
 * RFC 9068 `at+jwt`. @nestjs/jwt verifies. Signing is done here: around a signature of 39 µs the library spends as much again on
 * checking options and copying claims that are ours (ADR 13).
 */
@Injectable()
export class JwtFormat implements SealedFormat {
  readonly name = 'jwt';
  readonly purpose = 'token-sign';
  private readonly headers = new WeakMap<Key, string>();

  constructor(
    private readonly jwt: JwtService,
    private readonly config: Config,
  ) {}

  recognises(text: string): boolean {
    return text.startsWith('eyJ');
  }

  seal(token: ClientToken, key: Key): string {
    const claims: Claims = {
      iss: this.config.ISSUER_URL,
      sub: token.subjectId,
      client_id: clientIdOf(token.clientId),
      aud: token.audience.length === 1 ? token.audience[0] : [...token.audience],
      iat: token.issuedAt,
      exp: token.expiresAt,
      jti: token.id,
      scope: token.scopes.join(' '),
      org_id: token.organizationId,
      credential_id: token.credentialId,
      [EPOCHS]: epochsOf(token),
      ...(token.resource && {
        grant_id: token.resource.grantId,
        resource_org_id: token.resource.organizationId,
        company_id: token.resource.companyId,
      }),
    };
    const input = `${this.headerText(key)}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`;
    return `${input}.${signature(input, key)}`;
  }

  private headerText(key: Key): string {
    let text = this.headers.get(key);
    if (text === undefined) {
      const header = { alg: key.algorithm, typ: 'at+jwt', kid: key.kid };
      text = Buffer.from(JSON.stringify(header)).toString('base64url');
      this.headers.set(key, text);
    }
    return text;
  }

  kidOf(text: string): string | undefined {
    const kid = this.headerOf(text)?.kid;
    return typeof kid === 'string' ? kid : undefined;
  }

  open(text: string, key: Key): ClientToken | undefined {
    const header = this.headerOf(text);
    // The algorithm is the key's, not the token's; an extension that must be understood is not.
    if (header?.typ !== 'at+jwt' || header.alg !== key.algorithm || 'crit' in header) return undefined;
    let claims: Claims;
    try {
      claims = this.jwt.verify<Claims>(text, {
        publicKey: key.publicKey as never,
        algorithms: [key.algorithm as Config['JWT_ALG']],
        issuer: this.config.ISSUER_URL,
        ignoreExpiration: true, // judged by the database's clock, for every format in one place
      });
    } catch {
      return undefined;
    }
    const clientId = accountIdOf(claims.client_id);
    if (clientId === undefined) return undefined;
    const { era, ...epochs } = named(claims[EPOCHS]);
    const { grant_id: grantId, resource_org_id: resourceOrganizationId, company_id: companyId } = claims;
    return {
      id: claims.jti,
      issuedAt: claims.iat,
      expiresAt: claims.exp,
      clientId,
      subjectId: claims.sub,
      organizationId: claims.org_id,
      credentialId: claims.credential_id,
      scopes: claims.scope === '' ? [] : claims.scope.split(' '),
      audience: Array.isArray(claims.aud) ? claims.aud : [claims.aud],
      era,
      holds: holdsOf(epochs, {
        organization: claims.org_id,
        account: clientId,
        credential: claims.credential_id,
        user: claims.sub,
        grant: grantId,
        resource_organization: resourceOrganizationId,
      }),
      ...(grantId && { resource: { grantId, organizationId: resourceOrganizationId!, companyId: companyId! } }),
    };
  }

  private headerOf(text: string): { alg?: unknown; kid?: unknown; typ?: unknown } | undefined {
    try {
      const header = JSON.parse(Buffer.from(text.slice(0, text.indexOf('.')), 'base64url').toString());
      return typeof header === 'object' && header !== null ? header : undefined;
    } catch {
      return undefined;
    }
  }
}

function epochsOf({ era, holds }: ClientToken): Epochs {
  const epochs: Epochs = { era };
  for (const name in holds) epochs[name as HoldName] = holds[name as HoldName]!.epoch;
  return epochs;
}

function named(epochs: Epochs | UnnamedEpochs): Epochs {
  if (!Array.isArray(epochs)) return epochs;
  const [era, organization, account, credential] = epochs;
  return { era, organization, account, credential };
}

const holdsOf = (epochs: Omit<Epochs, 'era'>, ids: Partial<Record<HoldName, string>>): Holds =>
  Object.fromEntries(Object.entries(epochs).map(([name, epoch]) => [name, { id: ids[name as HoldName]!, epoch }]));

/** RFC 7515 §5.1, in base64url. A KeyObject that is passed alone signs twice as fast on Node 24 as one inside options. */
function signature(input: string, { algorithm, secret }: Key): string {
  const octets = Buffer.from(input);
  if (algorithm === 'RS256') return sign('sha256', octets, secret).toString('base64url');
  if (algorithm === 'PS256') {
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    return sign('sha256', octets, { key: secret, padding, saltLength: 32 }).toString('base64url');
  }
  return joseSignature(sign('sha256', octets, secret)).toString('base64url');
}

const P256_OCTETS = 32;

/**
 * RFC 7518 §3.4: an ECDSA signature on P-256 as R and S of 32 octets each, out of DER, SEQUENCE { INTEGER r, INTEGER s }. DER drops
 * leading zeros, and adds one where the first bit is set.
 */
function joseSignature(der: Buffer): Buffer {
  const signature = Buffer.alloc(2 * P256_OCTETS);
  let at = 2; // the tag and the length of the sequence: at most 70 octets, so one octet of length
  for (const end of [P256_OCTETS, 2 * P256_OCTETS]) {
    const length = der[at + 1];
    const start = at + 2;
    const surplus = Math.max(0, length - P256_OCTETS);
    der.copy(signature, end - (length - surplus), start + surplus, start + length);
    at = start + length;
  }
  return signature;
}
