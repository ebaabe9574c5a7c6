import { Injectable } from '@nestjs/common';
import { allowedScopes } from '../../kernel/scope.js';
import type { AuthenticatedClient } from '../../service-accounts/clients.js';
import type { Decision, Grant } from './grant.js';

/** RFC 6749 §4.4: the client acts for itself, with what its account may use. There is never a refresh token. */
@Injectable()
export class ClientCredentials implements Grant {
  readonly type = 'client_credentials';
  /** A client that authenticates with a secret is the same object until something about it changes. */
  private readonly decided = new WeakMap<AuthenticatedClient, Decision>();

  decide(authenticated: AuthenticatedClient): Decision {
    const known = this.decided.get(authenticated);
    if (known) return known;
    const { client, organization } = authenticated;
    const scopes = allowedScopes(client.scopes, organization).sort();
    const decision = { ...authenticated, subject: client.actor, scopes };
    this.decided.set(authenticated, decision);
    return decision;
  }
}
