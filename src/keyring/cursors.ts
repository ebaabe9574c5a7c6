import { createHmac, timingSafeEqual } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { problem } from '../kernel/problem.js';
import { Keyring } from './keyring.js';

/** Where a list goes on. MACed over what it lists, so that it works for that list alone and tells nothing of another organization. */
@Injectable()
export class Cursors {
  constructor(private readonly keyring: Keyring) {}

  /** `list` names route, organization, filters and sort; `position` is the last row's sort key. */
  seal(list: unknown, position: readonly (string | null)[]): string {
    const body = Buffer.from(JSON.stringify(position));
    return Buffer.concat([this.mac(list, body), body]).toString('base64url');
  }

  /** Throws the problem `invalid_cursor` for anything that was not sealed for this list. */
  open(list: unknown, cursor: string): (string | null)[] {
    const octets = Buffer.from(cursor, 'base64url');
    const body = octets.subarray(16);
    if (octets.length <= 16 || !timingSafeEqual(octets.subarray(0, 16), this.mac(list, body)))
      throw problem('invalid_cursor');
    return JSON.parse(body.toString());
  }

  private mac(list: unknown, body: Buffer): Buffer {
    return createHmac('sha256', this.keyring.active('cursor').secret)
      .update(JSON.stringify(list))
      .update('\0')
      .update(body)
      .digest()
      .subarray(0, 16);
  }
}
