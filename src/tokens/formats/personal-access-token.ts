import { Injectable } from '@nestjs/common';
import { Config } from '../../config/config.js';
import { prefixOf } from '../../kernel/secret-value.js';
import { RevocationView } from '../../revocation/revocation-view.js';
import type { Credential } from '../../service-accounts/credentials/credential.entity.js';
import { PersonalAccessTokenKind } from '../../service-accounts/credentials/personal-access-token.js';
import type { AccessToken, RowFormat } from '../access-token.js';
import { TokenRejected } from '../tokens.service.js';

/** `client_pat_live_…`: a text that only names and proves a credential; the claims stand in its row. */
@Injectable()
export class PersonalAccessTokenFormat implements RowFormat {
  readonly name = 'personal_access_token';
  private readonly prefix: string;

  constructor(
    private readonly kind: PersonalAccessTokenKind,
    private readonly view: RevocationView,
    private readonly config: Config,
  ) {
    this.prefix = prefixOf('pat', { word: config.CREDENTIAL_PREFIX, environment: config.ENVIRONMENT });
  }

  recognises(text: string): boolean {
    return text.startsWith(this.prefix);
  }

  read(text: string): AccessToken | undefined | Promise<AccessToken | undefined> {
    this.view.assertFresh(); // whoever is blind does not wait for a database that may be gone
    const credential = this.kind.prove(text);
    if (credential instanceof Promise) return credential.then((row) => row && this.tokenOf(row));
    return credential && this.tokenOf(credential);
  }

  /** What the row says. Throws TokenRejected when it was revoked, or its owner is a member no more: the row knows for longer than the feed. */
  tokenOf(credential: Credential): AccessToken {
    const { id, organizationId, serviceAccountId, membershipId, createdAt, expiresAt, scopes, era } = credential;
    const owner = serviceAccountId ?? membershipId;
    if (credential.revokedAt || owner === null) throw new TokenRejected('revoked');
    const [organizationEpoch, ownerEpoch] = credential.epochs!;
    return {
      id,
      issuedAt: Math.floor(createdAt.getTime() / 1000),
      expiresAt: Math.floor(expiresAt!.getTime() / 1000),
      clientId: serviceAccountId,
      subjectId: serviceAccountId ?? credential.userId ?? owner,
      organizationId,
      credentialId: id,
      scopes: scopes!,
      audience: [this.config.AUDIENCE],
      era: era!,
      holds: {
        organization: { id: organizationId, epoch: organizationEpoch },
        [serviceAccountId ? 'account' : 'membership']: { id: owner, epoch: ownerEpoch },
        credential: { id, epoch: 0 },
      },
    };
  }
}
