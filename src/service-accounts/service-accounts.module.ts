import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AuditModule } from '../audit/audit.module.js';
import { ChangesModule } from '../changes/changes.module.js';
import { KeyringModule } from '../keyring/keyring.module.js';
import { OrganizationsModule } from '../organizations/organizations.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { Clients, KINDS } from './clients.js';
import { Credential } from './credentials/credential.entity.js';
import { CredentialQuota } from './credentials/credential-quota.js';
import { Credentials } from './credentials/credentials.service.js';
import { CREDENTIAL_KINDS } from './credentials/kinds.js';
import { ServiceAccount } from './service-account.entity.js';
import { ServiceAccounts } from './service-accounts.service.js';

/** Owns service accounts, their credentials and the in-memory directory of them. Refuses to know what a token looks like. */
@Module({
  imports: [
    TypeOrmModule.forFeature([ServiceAccount, Credential]),
    AuditModule,
    ChangesModule,
    KeyringModule,
    OrganizationsModule,
    RevocationModule,
  ],
  providers: [
    ServiceAccounts,
    Credentials,
    CredentialQuota,
    Clients,
    ...CREDENTIAL_KINDS,
    { provide: KINDS, useFactory: (...kinds) => kinds, inject: CREDENTIAL_KINDS },
  ],
  exports: [ServiceAccounts, Credentials, Clients, ...CREDENTIAL_KINDS],
})
export class ServiceAccountsModule {}
