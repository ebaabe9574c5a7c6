import type { Actor } from '../kernel/actor.js';
import type { AuthenticatedClient } from '../service-accounts/clients.js';
import type { GrantedResource } from './access-token.js';

/**
 * What a grant authorizes: a client, with the credential that it proved, to act for a subject. `Tokens.issue` makes a token of it.
 * `holds` names everything that ends the token; a grant of a person adds the person, the grant and the resource's organization.
 */
export interface Authorization extends AuthenticatedClient {
  /** Whom the token stands for: the client's own account, or a person whose grant the client acts under. */
  subject: Actor & { id: string };
  /** The one resource that the token reaches. Absent: all that the account itself may reach. */
  resource?: GrantedResource;
  scopes: readonly string[];
  audience: readonly string[];
  /** Members that the answer carries beside those of the access token, such as `refresh_token`. */
  answer?: Readonly<Record<string, string>>;
}
