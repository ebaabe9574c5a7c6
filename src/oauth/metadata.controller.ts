import { Controller, Get, Header, Inject, Req, Res } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiProperty, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Public } from '../access/access.js';
import { Config } from '../config/config.js';
import { Scopes } from '../organizations/scopes.service.js';
import { Keys } from '../tokens/keys.service.js';
import type { ClientAuthMethod } from './client-auth/client-auth-method.js';
import { METHODS } from './client-authentication.js';
import type { Grant } from './grants/grant.js';
import {
  assertRealm,
  INTROSPECTION_PATHS,
  JWKS_PATHS,
  METADATA_PATHS,
  REVOCATION_PATHS,
  TOKEN_PATHS,
} from './paths.js';
import { GRANT_TYPES } from './token.controller.js';

/** RFC 8414 */
class ServerMetadata {
  issuer: string;
  token_endpoint: string;
  jwks_uri: string;
  grant_types_supported: string[];
  token_endpoint_auth_methods_supported: string[];
  token_endpoint_auth_signing_alg_values_supported: string[];
  introspection_endpoint: string;
  /** `Bearer`: an access token that holds `tokens:introspect`. */
  introspection_endpoint_auth_methods_supported: string[];
  introspection_endpoint_auth_signing_alg_values_supported: string[];
  revocation_endpoint: string;
  revocation_endpoint_auth_methods_supported: string[];
  revocation_endpoint_auth_signing_alg_values_supported: string[];
  scopes_supported: string[];
  service_documentation: string;
  response_types_supported: string[];
  subject_types_supported: string[];
  id_token_signing_alg_values_supported: string[];
  authorization_endpoint: string;
}

/** RFC 7517: public members only. */
class PublicJwk {
  @ApiProperty({ enum: ['EC', 'RSA'] })
  kty: string;
  kid: string;
  @ApiProperty({ enum: ['sig'] })
  use: string;
  alg: string;
  /** Of an EC key: `crv`, `x`, `y`. */
  crv?: string;
  x?: string;
  y?: string;
  /** Of an RSA key: `n`, `e`. */
  n?: string;
  e?: string;
}

class JwkSet {
  keys: PublicJwk[];
}

@ApiTags('OAuth 2.0')
@Controller()
export class MetadataController {
  constructor(
    @Inject(GRANT_TYPES) private readonly grants: readonly Grant[],
    @Inject(METHODS) private readonly methods: readonly ClientAuthMethod[],
    private readonly keys: Keys,
    private readonly scopes: Scopes,
    private readonly config: Config,
  ) {}

  @Get([...METADATA_PATHS])
  @Public({ crossOrigin: true })
  @Header('Cache-Control', 'public, max-age=300')
  @ApiOperation({
    operationId: 'getMetadata',
    summary: 'Authorization server metadata',
    description:
      'RFC 8414. Served at the OpenID Connect path too, with the members required there; no ID token is ever issued (D21).',
  })
  @ApiOkResponse({ type: ServerMetadata })
  async metadata(@Req() request: FastifyRequest): Promise<ServerMetadata> {
    assertRealm(request, this.config);
    const issuer = this.config.ISSUER_URL;
    const methods = this.methods.map(({ name }) => name);
    const algorithms = this.methods.flatMap(({ signingAlgorithms }) => signingAlgorithms ?? []);
    return {
      issuer,
      token_endpoint: `${issuer}/${TOKEN_PATHS[0]}`,
      jwks_uri: `${issuer}/${JWKS_PATHS[0]}`,
      grant_types_supported: this.grants.map(({ type }) => type),
      token_endpoint_auth_methods_supported: methods,
      token_endpoint_auth_signing_alg_values_supported: algorithms,
      introspection_endpoint: `${issuer}/${INTROSPECTION_PATHS[0]}`,
      // RFC 8414 §2 has access token types stand among the methods.
      introspection_endpoint_auth_methods_supported: [...methods, 'Bearer'],
      introspection_endpoint_auth_signing_alg_values_supported: algorithms,
      revocation_endpoint: `${issuer}/${REVOCATION_PATHS[0]}`,
      revocation_endpoint_auth_methods_supported: methods,
      revocation_endpoint_auth_signing_alg_values_supported: algorithms,
      scopes_supported: [...(await this.scopes.names())].sort(),
      service_documentation: `${issuer}/docs`,
      response_types_supported: [],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: [this.config.JWT_ALG],
      // Required by OpenID Connect Discovery. There is no such endpoint until a grant needs a person's consent.
      authorization_endpoint: `${issuer}/oauth/authorize`,
    };
  }

  @Get([...JWKS_PATHS])
  @Public({ crossOrigin: true })
  @ApiOperation({
    operationId: 'getJwks',
    summary: 'Keys that verify JWT access tokens',
    description: 'RFC 7517. Holds the next signing key well before it is used: cache it no longer than max-age says.',
  })
  @ApiOkResponse({ type: JwkSet })
  jwks(@Req() request: FastifyRequest, @Res() reply: FastifyReply): void {
    assertRealm(request, this.config);
    void reply
      .header('cache-control', `public, max-age=${this.config.JWKS_MAX_AGE_SECONDS}`)
      .type('application/json')
      .send(this.keys.jwks());
  }
}
