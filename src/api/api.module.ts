import { Module } from '@nestjs/common';
import { TerminusModule } from '@nestjs/terminus';
import { AuditModule } from '../audit/audit.module.js';
import { KeyringModule } from '../keyring/keyring.module.js';
import { OrganizationsModule } from '../organizations/organizations.module.js';
import { RateLimitsModule } from '../rate-limits/rate-limits.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { ServiceAccountsModule } from '../service-accounts/service-accounts.module.js';
import { TokensModule } from '../tokens/tokens.module.js';
import { AuditController } from './audit.controller.js';
import { HealthController } from './health.controller.js';
import { KeysController } from './keys.controller.js';
import { OrganizationsController } from './organizations.controller.js';
import { PartnerController } from './partner.controller.js';
import { PartnerUsersController } from './partner-users.controller.js';
import { PersonalAccessTokensController } from './personal-access-tokens.controller.js';
import { PlatformKeysController } from './platform-keys.controller.js';
import { ScopesController } from './scopes.controller.js';
import { SecretsController } from './secrets.controller.js';
import { ServiceAccountsController } from './service-accounts.controller.js';
import { ServicePrincipalsController } from './service-principals.controller.js';
import { SessionController } from './session.controller.js';
import { UsersController } from './users.controller.js';

/** Owns the management API: a controller method is a route, a permission and one call. Refuses to decide anything itself. */
@Module({
  imports: [
    TerminusModule.forRoot({ gracefulShutdownTimeoutMs: 0, errorLogStyle: 'json', logger: false }),
    AuditModule,
    KeyringModule,
    OrganizationsModule,
    RateLimitsModule,
    RevocationModule,
    ServiceAccountsModule,
    TokensModule,
  ],
  controllers: [
    SessionController,
    OrganizationsController,
    UsersController,
    PartnerController,
    PartnerUsersController,
    ScopesController,
    ServiceAccountsController,
    SecretsController,
    KeysController,
    ServicePrincipalsController,
    PersonalAccessTokensController,
    AuditController,
    PlatformKeysController,
    HealthController,
  ],
})
export class ApiModule {}
