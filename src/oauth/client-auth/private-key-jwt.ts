import { Injectable } from '@nestjs/common';
import { Config } from '../../config/config.js';
import { Clock } from '../../kernel/clock.js';
import { OAuthError } from '../../kernel/oauth-error.js';
import { Clients } from '../../service-accounts/clients.js';
import { KEY_ALGORITHMS } from '../../service-accounts/credentials/read-public-key.js';
import type { OAuthRequest } from '../token-request.js';
import { judgeClaims, readAssertion } from './assertion.js';
import type { Attempt, ClientAuthMethod } from './client-auth-method.js';

const JWT_BEARER = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const MAX_LENGTH = 8192;
/** As far as a `kid` is told to the log. */
const NAME = /^[\x21-\x7E]{1,128}$/;

/** RFC 7523 §2.2 (J1–J4): a JWT that the client signed with one of its own keys, for this server, for five minutes, for one request. */
@Injectable()
export class PrivateKeyJwt implements ClientAuthMethod {
  readonly name = 'private_key_jwt';
  readonly signingAlgorithms = [KEY_ALGORITHMS[0], 'Ed25519', ...KEY_ALGORITHMS.slice(1)];

  constructor(
    private readonly clients: Clients,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {}

  uses({ parameters }: OAuthRequest): boolean {
    return parameters.get('client_assertion') !== undefined || parameters.get('client_assertion_type') !== undefined;
  }

  async prove(request: OAuthRequest): Promise<Attempt> {
    const text = request.parameters.get('client_assertion');
    const type = request.parameters.get('client_assertion_type');
    if (type !== JWT_BEARER) throw new OAuthError('invalid_request', `client_assertion_type must be ${JWT_BEARER}`);
    if (text === undefined) throw new OAuthError('invalid_request', 'client_assertion is missing');
    if (text.length > MAX_LENGTH) throw new OAuthError('invalid_request', 'client_assertion is over 8 KiB');
    const assertion = readAssertion(text);
    if (typeof assertion === 'string') return { claimed: undefined, outcome: { refused: assertion } };
    const { clientId: claimed, algorithm, kid, data, signature } = assertion;
    const noted = { alg: algorithm, ...(kid !== undefined && NAME.test(kid) && { kid }) };
    const outcome = await this.clients.proveSignature(claimed, { kid, algorithm }, data, signature);
    if ('refused' in outcome) return { claimed, outcome, noted };
    const judged = judgeClaims(assertion, this.audiences(request), this.clock.seconds());
    if (typeof judged === 'string') {
      const { client, credential } = outcome;
      return { claimed, outcome: { refused: judged, client, credentialId: credential.id }, noted };
    }
    return { claimed, outcome: { ...outcome, once: { serviceAccountId: outcome.client.id, ...judged } }, noted };
  }

  /** D13. The endpoint's URL is that of the path as it was called, at the issuer as it is configured: no header has a say. */
  private audiences({ http }: OAuthRequest): string[] {
    const { ISSUER_URL: issuer, ASSERTION_AUDIENCE } = this.config;
    return ASSERTION_AUDIENCE === 'issuer' ? [issuer] : [issuer, `${issuer}${http.url.split('?', 1)[0]}`];
  }
}
