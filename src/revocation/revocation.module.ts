import { Module } from '@nestjs/common';
import { RevocationFeed } from './revocation-feed.js';
import { RevocationView } from './revocation-view.js';
import { Revocations } from './revocations.js';

/** Owns epochs, the feed, the in-memory view and the barrier. Refuses to know what is revoked. */
@Module({
  providers: [RevocationView, RevocationFeed, Revocations],
  exports: [RevocationView, RevocationFeed, Revocations],
})
export class RevocationModule {}
