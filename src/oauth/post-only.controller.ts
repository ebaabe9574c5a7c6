import { Controller, Get } from '@nestjs/common';
import { ApiExcludeEndpoint, ApiTags } from '@nestjs/swagger';
import { Public } from '../access/access.js';
import { OAuthError } from '../kernel/oauth-error.js';
import { POST_PATHS } from './paths.js';

/** RFC 6749 §3.2, RFC 7662 §2.1, RFC 7009 §2.1: what carries tokens and secrets is never asked for by GET. */
@ApiTags('OAuth 2.0')
@Controller()
export class PostOnlyController {
  @Get([...POST_PATHS])
  @Public({ crossOrigin: true })
  @ApiExcludeEndpoint()
  notAllowed(): never {
    throw new OAuthError('invalid_request', 'This endpoint takes POST only', {
      status: 405,
      headers: { Allow: 'POST' },
    });
  }
}
