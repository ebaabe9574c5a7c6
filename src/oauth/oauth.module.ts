import { Module } from '@nestjs/common';
import { PassportModule } from '@nestjs/passport';
import { ChangesModule } from '../changes/changes.module.js';
import { OrganizationsModule } from '../organizations/organizations.module.js';
import { RateLimitsModule } from '../rate-limits/rate-limits.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { ServiceAccountsModule } from '../service-accounts/service-accounts.module.js';
import { ServiceAccounts } from '../service-accounts/service-accounts.service.js';
import { isSealed, type TokenFormat } from '../tokens/access-token.js';
import { TokensModule } from '../tokens/tokens.module.js';
import { FORMATS } from '../tokens/tokens.service.js';
import { BasicClientStrategy } from './client-auth/client-secret-basic.js';
import { ClientAuthentication, METHODS } from './client-authentication.js';
import { IntrospectionController } from './introspection.controller.js';
import { MetadataController } from './metadata.controller.js';
import { PostOnlyController } from './post-only.controller.js';
import { RevocationController } from './revocation.controller.js';
import { CLIENT_AUTH_METHODS, GRANTS } from './supported.js';
import { GRANT_TYPES, TokenController } from './token.controller.js';

const all = <T>(...entries: T[]) => entries;

/** Owns the OAuth endpoints. Refuses to know how tokens are written, and mints none itself. */
@Module({
  imports: [
    PassportModule,
    ChangesModule,
    OrganizationsModule,
    RateLimitsModule,
    RevocationModule,
    ServiceAccountsModule,
    TokensModule,
  ],
  controllers: [TokenController, IntrospectionController, RevocationController, PostOnlyController, MetadataController],
  providers: [
    BasicClientStrategy,
    ClientAuthentication,
    ...GRANTS,
    ...CLIENT_AUTH_METHODS,
    { provide: GRANT_TYPES, useFactory: all, inject: GRANTS },
    { provide: METHODS, useFactory: all, inject: CLIENT_AUTH_METHODS },
    {
      // An account can be set to what the server speaks, and to nothing else.
      provide: 'account choices',
      useFactory: (accounts: ServiceAccounts, formats: TokenFormat[], methods: { name: string }[]) =>
        accounts.support(
          formats.filter(isSealed).map(({ name }) => name),
          methods.map(({ name }) => name),
        ),
      inject: [ServiceAccounts, FORMATS, METHODS],
    },
  ],
})
export class OAuthModule {}
