import { Injectable } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import type { FastifyRequest } from 'fastify';
import { BasicStrategy } from 'passport-http';
import { isStorableText } from '../../kernel/text.js';
import { Clients } from '../../service-accounts/clients.js';
import { formDecode, type OAuthRequest } from '../token-request.js';
import type { Attempt, ClientAuthMethod } from './client-auth-method.js';

/** RFC 7617 with RFC 6749 §2.3.1: id and secret are form-encoded before they are joined. Undefined for anything else. */
export function parseBasic(header: string): { id: string; secret: string } | undefined {
  const match = /^basic +([A-Za-z0-9+/]+={0,2}) *$/i.exec(header);
  if (!match) return undefined;
  const text = Buffer.from(match[1], 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon < 1) return undefined;
  try {
    const id = formDecode(text.slice(0, colon));
    const secret = formDecode(text.slice(colon + 1));
    return isStorableText(id) && isStorableText(secret) ? { id, secret } : undefined;
  } catch {
    return undefined;
  }
}

/**
 * passport-http's strategy, run by @nestjs/passport. It cuts the password at a second colon and does not form-decode, so the header
 * is parsed here; what passport took from it is not used.
 */
@Injectable()
export class BasicClientStrategy extends PassportStrategy(BasicStrategy, 'client_secret_basic') {
  constructor(private readonly clients: Clients) {
    super({ realm: 'gatehouse', passReqToCallback: true } as never);
  }

  async validate(request: FastifyRequest): Promise<Attempt> {
    const basic = parseBasic(request.headers.authorization!);
    if (!basic) return MALFORMED;
    return { claimed: basic.id, outcome: await this.clients.proveSecret(basic.id, basic.secret) };
  }
}

const MALFORMED: Attempt = { claimed: undefined, outcome: { refused: 'wrong_secret' } };

@Injectable()
export class ClientSecretBasic implements ClientAuthMethod {
  readonly name = 'client_secret_basic';

  constructor(private readonly strategy: BasicClientStrategy) {}

  /** Any Authorization header is an attempt at it: another scheme fails, it does not count as none. */
  uses({ http }: OAuthRequest): boolean {
    return http.headers.authorization !== undefined;
  }

  /**
   * Runs the strategy as passport does: an object that inherits from it and hears how it ends. Passport's own middleware and
   * Nest's guard around it cost more than everything else that authentication does.
   */
  prove({ http }: OAuthRequest): Promise<Attempt> {
    return new Promise((success, error) => {
      // A header that passport-http itself finds wanting is an attempt that failed, not an error of ours.
      const fail = () => success(MALFORMED);
      const run = Object.create(this.strategy);
      run.success = success;
      run.fail = fail;
      run.error = error;
      run.authenticate(http);
    });
  }
}
