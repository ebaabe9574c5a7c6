import { Injectable } from '@nestjs/common';
import { allowedScopes } from '../../kernel/scope.js';
import type { AuthenticatedClient } from '../../service-accounts/clients.js';
import type { Decision, Grant } from './grant.js';

/** RFC 6749 §4.4: the client acts for itself, with what its account may use. There is never a refresh token. */
@Injectable()
export class ClientCredentials implements Grant {
  readonly type = 'client_credentials';

  decide(authenticated: AuthenticatedClient): Decision {
    const { client, organization } = authenticated;
    return { ...authenticated, subject: client.actor, scopes: allowedScopes(client.scopes, organization) };
  }
}
