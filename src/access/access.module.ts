import { Module } from '@nestjs/common';
import { KeyringModule } from '../keyring/keyring.module.js';
import { OrganizationsModule } from '../organizations/organizations.module.js';
import { RateLimitsModule } from '../rate-limits/rate-limits.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { TokensModule } from '../tokens/tokens.module.js';
import { AccessGuard } from './access.js';

/** Owns the one gate of every route. Refuses to know what lies behind it. */
@Module({
  imports: [KeyringModule, OrganizationsModule, RateLimitsModule, RevocationModule, TokensModule],
  providers: [AccessGuard],
  exports: [AccessGuard],
})
export class AccessModule {}
