import { createCipheriv, createDecipheriv } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../../config/config.js';
import type { Holds } from '../../kernel/actor.js';
import { randomOctets, uuidText, writeUuid } from '../../kernel/ids.js';
import { prefixOf } from '../../kernel/secret-value.js';
import type { Key } from '../../keyring/keyring.js';
import type { ClientToken, SealedFormat } from '../access-token.js';

const KID = 22;
const NONCE = 12;
const TAG = 16;

/**
 * `client_oa2_live_` + kid + base64url(nonce | ciphertext | tag): the claims, sealed with AES-256-GCM under a key that changes daily.
 * The prefix and the kid are the AAD, so a token cannot be moved to another environment. A forged one fails at its tag, without I/O.
 */
@Injectable()
export class OpaqueFormat implements SealedFormat {
  readonly name = 'opaque';
  readonly purpose = 'token-seal';
  private readonly prefix: string;
  private readonly headers = new WeakMap<Key, { text: string; octets: Buffer }>();

  constructor(config: Config) {
    this.prefix = prefixOf('oa2', { word: config.CREDENTIAL_PREFIX, environment: config.ENVIRONMENT });
  }

  recognises(text: string): boolean {
    return text.startsWith(this.prefix);
  }

  seal(token: ClientToken, key: Key): string {
    let header = this.headers.get(key);
    if (!header) {
      const text = this.prefix + key.kid;
      header = { text, octets: Buffer.from(text) };
      this.headers.set(key, header);
    }
    const nonce = randomOctets(NONCE);
    const cipher = createCipheriv('aes-256-gcm', key.secret, nonce).setAAD(header.octets);
    const sealed = cipher.update(pack(token));
    cipher.final();
    return header.text + Buffer.concat([nonce, sealed, cipher.getAuthTag()]).toString('base64url');
  }

  kidOf(text: string): string {
    return text.slice(this.prefix.length, this.prefix.length + KID);
  }

  open(text: string, key: Key): ClientToken | undefined {
    const start = this.prefix.length + KID;
    const header = text.slice(0, start);
    const octets = Buffer.from(text.slice(start), 'base64url');
    // base64url decoding is lenient; a token has exactly one spelling.
    if (octets.length <= NONCE + TAG || octets.toString('base64url') !== text.slice(start)) return undefined;
    try {
      const decipher = createDecipheriv('aes-256-gcm', key.secret, octets.subarray(0, NONCE), { authTagLength: TAG });
      decipher.setAAD(Buffer.from(header)).setAuthTag(octets.subarray(-TAG));
      return unpack(Buffer.concat([decipher.update(octets.subarray(NONCE, -TAG)), decipher.final()]));
    } catch {
      return undefined;
    }
  }
}

/**
 * The claims as octets: the version, four ids, the times, the era and three epochs; under a grant also four ids and three epochs; then
 * scope and audience as text. The tag proves that this server wrote them, so their form is not checked again.
 */
const VERSION = 0x82;
const GRANTED_VERSION = 0x83;
/** A token from before there were versions begins with its UUIDv7, whose first octet stays below this until the year 6429. */
const FIRST_VERSION = 0x80;
const FIXED = 4 * 16 + 6 + 4 + 4 * 4;
const GRANTED = 4 * 16 + 3 * 4;

function pack(t: ClientToken): Buffer {
  const text = `${t.scopes.join(' ')}\n${t.audience.join(' ')}`;
  const fixed = 1 + FIXED + (t.resource ? GRANTED : 0);
  const octets = Buffer.allocUnsafe(fixed + Buffer.byteLength(text));
  octets[0] = t.resource ? GRANTED_VERSION : VERSION;
  writeUuid(t.id, octets, 1);
  writeUuid(t.organizationId, octets, 17);
  writeUuid(t.clientId, octets, 33);
  writeUuid(t.credentialId, octets, 49);
  let at = octets.writeUIntBE(t.issuedAt, 65, 6);
  at = octets.writeUInt32BE(t.expiresAt - t.issuedAt, at);
  at = octets.writeUInt32BE(t.era, at);
  at = octets.writeUInt32BE(t.holds.organization!.epoch, at);
  at = octets.writeUInt32BE(t.holds.account!.epoch, at);
  at = octets.writeUInt32BE(t.holds.credential!.epoch, at);
  if (t.resource) {
    writeUuid(t.subjectId, octets, at);
    writeUuid(t.resource.grantId, octets, at + 16);
    writeUuid(t.resource.organizationId, octets, at + 32);
    writeUuid(t.resource.companyId, octets, at + 48);
    at = octets.writeUInt32BE(t.holds.user!.epoch, at + 64);
    at = octets.writeUInt32BE(t.holds.grant!.epoch, at);
    at = octets.writeUInt32BE(t.holds.resource_organization!.epoch, at);
  }
  octets.write(text, at);
  return octets;
}

/** Undefined for a version that this server does not know. */
function unpack(octets: Buffer): ClientToken | undefined {
  const versioned = octets[0] >= FIRST_VERSION;
  const granted = octets[0] === GRANTED_VERSION;
  if (versioned && !granted && octets[0] !== VERSION) return undefined;
  let at = versioned ? 1 : 0;
  const uuid = () => {
    at += 16;
    return uuidText(octets, at - 16);
  };
  const integer = (size: 4 | 6 = 4) => {
    at += size;
    return octets.readUIntBE(at - size, size);
  };
  const [id, organizationId, clientId, credentialId] = [uuid(), uuid(), uuid(), uuid()];
  const issuedAt = integer(6);
  const expiresAt = issuedAt + integer();
  const era = integer();
  const holds: Holds = {
    organization: { id: organizationId, epoch: integer() },
    account: { id: clientId, epoch: integer() },
    credential: { id: credentialId, epoch: integer() },
  };
  const token = { id, issuedAt, expiresAt, clientId, subjectId: clientId, organizationId, credentialId, era, holds };
  if (granted) {
    token.subjectId = uuid();
    const resource = { grantId: uuid(), organizationId: uuid(), companyId: uuid() };
    token.holds = {
      ...holds,
      user: { id: token.subjectId, epoch: integer() },
      grant: { id: resource.grantId, epoch: integer() },
      resource_organization: { id: resource.organizationId, epoch: integer() },
    };
    Object.assign(token, { resource });
  }
  const [scope, audience] = octets.toString('utf8', at).split('\n');
  return { ...token, scopes: scope === '' ? [] : scope.split(' '), audience: audience.split(' ') };
}
