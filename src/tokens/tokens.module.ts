import { Module } from '@nestjs/common';
import { JwtModule } from '@nestjs/jwt';
import { ChangesModule } from '../changes/changes.module.js';
import { KeyringModule } from '../keyring/keyring.module.js';
import { OrganizationsModule } from '../organizations/organizations.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { ServiceAccountsModule } from '../service-accounts/service-accounts.module.js';
import { TOKEN_FORMATS } from './formats/formats.js';
import { Keys } from './keys.service.js';
import { MasterKeyRotation } from './master-key-rotation.js';
import { PersonalAccessTokens } from './personal-access-tokens.service.js';
import { TokenRevocations } from './token-revocations.js';
import { FORMATS, Tokens } from './tokens.service.js';

/** Owns what an access token says, how it is written, and the keys for it. Refuses to know how a client authenticated. */
@Module({
  imports: [
    JwtModule.register({}),
    ChangesModule,
    KeyringModule,
    OrganizationsModule,
    RevocationModule,
    ServiceAccountsModule,
  ],
  providers: [
    Keys,
    MasterKeyRotation,
    Tokens,
    PersonalAccessTokens,
    TokenRevocations,
    ...TOKEN_FORMATS,
    { provide: FORMATS, useFactory: (...formats) => formats, inject: TOKEN_FORMATS },
  ],
  exports: [Keys, MasterKeyRotation, Tokens, PersonalAccessTokens, TokenRevocations, FORMATS],
})
export class TokensModule {}
