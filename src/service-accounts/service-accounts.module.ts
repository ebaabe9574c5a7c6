import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AuditModule } from '../audit/audit.module.js';
import { ChangesModule } from '../changes/changes.module.js';
import { KeyringModule } from '../keyring/keyring.module.js';
import { OrganizationsModule } from '../organizations/organizations.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { Clients } from './clients.js';
import { CredentialQuota } from './credential-quota.js';
import { Secret } from './secret.entity.js';
import { Secrets } from './secrets.service.js';
import { ServiceAccount } from './service-account.entity.js';
import { ServiceAccounts } from './service-accounts.service.js';

/** Owns service accounts, their credentials and the in-memory directory of them. Refuses to know what a token looks like. */
@Module({
  imports: [
    TypeOrmModule.forFeature([ServiceAccount, Secret]),
    AuditModule,
    ChangesModule,
    KeyringModule,
    OrganizationsModule,
    RevocationModule,
  ],
  providers: [ServiceAccounts, Secrets, Clients, CredentialQuota],
  exports: [ServiceAccounts, Secrets, Clients],
})
export class ServiceAccountsModule {}
