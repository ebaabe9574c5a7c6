import { Module } from '@nestjs/common';
import { AuditLog } from './audit-log.js';

/** Owns the events. Knows nobody. */
@Module({ providers: [AuditLog], exports: [AuditLog] })
export class AuditModule {}
