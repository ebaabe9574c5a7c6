import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { ChangesModule } from '../changes/changes.module.js';
import { KeyringModule } from '../keyring/keyring.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { Bootstrap } from './bootstrap.js';
import { Members } from './members.js';
import { Membership } from './membership.entity.js';
import { Organization } from './organization.entity.js';
import { Organizations } from './organizations.service.js';
import { Passwords } from './passwords.js';
import { Scope } from './scope.entity.js';
import { Scopes } from './scopes.service.js';
import { Session } from './session.entity.js';
import { Sessions } from './sessions.service.js';
import { SignIn } from './sign-in.service.js';
import { SignInAttempts } from './sign-in-attempts.js';
import { User } from './user.entity.js';
import { Users } from './users.service.js';

/**
 * Owns organizations, people, what they are in each organization, and their sessions; the scopes that exist.
 * Refuses to know what a service account, a token or a cookie is: a session is judged by the value that somebody carries.
 */
@Module({
  imports: [
    TypeOrmModule.forFeature([Organization, User, Membership, Session, Scope]),
    ChangesModule,
    KeyringModule,
    RevocationModule,
  ],
  providers: [Organizations, Users, Members, Sessions, SignIn, Scopes, Passwords, SignInAttempts, Bootstrap],
  exports: [Organizations, Users, Members, Sessions, SignIn, Scopes, Bootstrap],
})
export class OrganizationsModule {}
