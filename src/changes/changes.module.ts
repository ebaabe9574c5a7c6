import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/audit.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { Changes } from './changes.js';
import { Recorder } from './recorder.js';

/** Owns how something comes to be changed and recorded. Refuses to know what. */
@Module({ imports: [AuditModule, RevocationModule], providers: [Changes, Recorder], exports: [Changes, Recorder] })
export class ChangesModule {}
