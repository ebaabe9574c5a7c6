import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/audit.module.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { Changes } from './changes.js';
import { Recorder } from './recorder.js';
import { SingleUses } from './single-use.js';

/** Owns how something comes to be changed and recorded. Refuses to know what. */
@Module({
  imports: [AuditModule, RevocationModule],
  providers: [Changes, Recorder, SingleUses],
  exports: [Changes, Recorder, SingleUses],
})
export class ChangesModule {}
