import { Module } from '@nestjs/common';
import { Cursors } from './cursors.js';
import { Keyring } from './keyring.js';

/** Owns the wrapped keys and MASTER_KEY. Refuses to know what is signed, sealed or hashed with them. */
@Module({ providers: [Keyring, Cursors], exports: [Keyring, Cursors] })
export class KeyringModule {}
