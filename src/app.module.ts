import { type DynamicModule, Module } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { AccessGuard } from './access/access.js';
import { AccessModule } from './access/access.module.js';
import { ApiModule } from './api/api.module.js';
import { AuditModule } from './audit/audit.module.js';
import { ChangesModule } from './changes/changes.module.js';
import { CompaniesModule } from './companies/companies.module.js';
import type { Config } from './config/config.js';
import { DatabaseModule, type PostgresConnection } from './database/database.module.js';
import { KeyringModule } from './keyring/keyring.module.js';
import { OAuthModule } from './oauth/oauth.module.js';
import { OrganizationsModule } from './organizations/organizations.module.js';
import { RateLimitsModule } from './rate-limits/rate-limits.module.js';
import { RevocationModule } from './revocation/revocation.module.js';
import { ServiceAccountsModule } from './service-accounts/service-accounts.module.js';
import { TokensModule } from './tokens/tokens.module.js';

/** The architecture, top down: each line may import only lines below it (`npm run arch`). */
@Module({})
export class AppModule {
  static forRoot(config: Config, connection: PostgresConnection): DynamicModule {
    return {
      module: AppModule,
      imports: [
        OAuthModule, // the token endpoint, metadata and keys, for integrations
        ApiModule, // the management API, for admins and auditors; health
        CompaniesModule, // the protected resource: copy it for your own
        AccessModule, // who calls, how often, may they
        TokensModule,
        ServiceAccountsModule,
        RateLimitsModule, // what each organization has used of its limit
        OrganizationsModule,
        ChangesModule, // how anything comes to be changed and recorded
        AuditModule,
        RevocationModule,
        KeyringModule,
        DatabaseModule.forRoot(connection, config),
      ],
      // Global: a controller cannot be without it, and a route that says nothing is denied.
      providers: [{ provide: APP_GUARD, useExisting: AccessGuard }],
    };
  }
}
