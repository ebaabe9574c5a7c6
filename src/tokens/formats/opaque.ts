import { createCipheriv, createDecipheriv } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../../config/config.js';
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

  constructor(config: Config) {
    this.prefix = prefixOf('oa2', { word: config.CREDENTIAL_PREFIX, environment: config.ENVIRONMENT });
  }

  recognises(text: string): boolean {
    return text.startsWith(this.prefix);
  }

  seal(token: ClientToken, key: Key): string {
    const header = this.prefix + key.kid;
    const nonce = randomOctets(NONCE);
    const cipher = createCipheriv('aes-256-gcm', key.secret, nonce).setAAD(Buffer.from(header, 'latin1'));
    const sealed = cipher.update(pack(token));
    cipher.final();
    return header + Buffer.concat([nonce, sealed, cipher.getAuthTag()]).toString('base64url');
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

/** Claims as octets: four ids, six integers, then scope and audience as text. The tag makes what is opened ours, so its form is sound. */
const FIXED = 4 * 16 + 6 + 4 + 4 * 4;

function pack(t: ClientToken): Buffer {
  const text = `${t.scopes.join(' ')}\n${t.audience.join(' ')}`;
  const octets = Buffer.allocUnsafe(FIXED + Buffer.byteLength(text));
  writeUuid(t.id, octets, 0);
  writeUuid(t.organizationId, octets, 16);
  writeUuid(t.clientId, octets, 32);
  writeUuid(t.credentialId, octets, 48);
  let at = octets.writeUIntBE(t.issuedAt, 64, 6);
  at = octets.writeUInt32BE(t.expiresAt - t.issuedAt, at);
  at = octets.writeUInt32BE(t.era, at);
  for (const { epoch } of t.holds) at = octets.writeUInt32BE(epoch, at);
  octets.write(text, at);
  return octets;
}

function unpack(octets: Buffer): ClientToken {
  const [id, organizationId, clientId, credentialId] = [0, 16, 32, 48].map((at) => uuidText(octets, at));
  const issuedAt = octets.readUIntBE(64, 6);
  const [scope, audience] = octets.toString('utf8', FIXED).split('\n');
  return {
    id,
    issuedAt,
    expiresAt: issuedAt + octets.readUInt32BE(70),
    clientId,
    organizationId,
    credentialId,
    scopes: scope === '' ? [] : scope.split(' '),
    audience: audience.split(' '),
    era: octets.readUInt32BE(74),
    holds: [organizationId, clientId, credentialId].map((held, i) => ({
      id: held,
      epoch: octets.readUInt32BE(78 + 4 * i),
    })),
  };
}
