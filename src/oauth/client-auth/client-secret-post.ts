import { Injectable } from '@nestjs/common';
import { Clients } from '../../service-accounts/clients.js';
import type { OAuthRequest } from '../token-request.js';
import type { Attempt, ClientAuthMethod } from './client-auth-method.js';

/** RFC 6749 §2.3.1: id and secret in the body. */
@Injectable()
export class ClientSecretPost implements ClientAuthMethod {
  readonly name = 'client_secret_post';

  constructor(private readonly clients: Clients) {}

  uses({ parameters }: OAuthRequest): boolean {
    return parameters.get('client_secret') !== undefined;
  }

  async prove({ parameters }: OAuthRequest): Promise<Attempt> {
    const id = parameters.get('client_id');
    return { claimed: id, outcome: await this.clients.proveSecret(id ?? '', parameters.get('client_secret') ?? '') };
  }
}
