import { Controller, Get } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiProperty, ApiTags } from '@nestjs/swagger';
import { HealthCheck, HealthCheckService, HealthIndicatorService, TypeOrmHealthIndicator } from '@nestjs/terminus';
import { Public } from '../access/access.js';
import { RateLimits } from '../rate-limits/rate-limits.js';
import { RevocationView } from '../revocation/revocation-view.js';

class Liveness {
  @ApiProperty({ enum: ['ok'] })
  status: string;
}

/** A pool from which no connection comes in this time is exhausted. */
const DATABASE_MS = 1000;

@ApiTags('Health')
@Controller('health')
@Public({ crossOrigin: true })
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly database: TypeOrmHealthIndicator,
    private readonly view: RevocationView,
    private readonly limits: RateLimits,
  ) {}

  @Get('live')
  @ApiOperation({
    operationId: 'getLiveness',
    summary: 'Liveness',
    description: 'The process runs. Restart it when this does not answer.',
  })
  @ApiOkResponse({ type: Liveness })
  live(): Liveness {
    return { status: 'ok' };
  }

  @Get('ready')
  @HealthCheck()
  @ApiOperation({
    operationId: 'getReadiness',
    summary: 'Readiness',
    description:
      'Migrated, keys opened, a connection to the database free, Redis there if it is set, and news of revocations within the bound: send traffic here.',
  })
  ready() {
    return this.health.check([
      () => {
        const indicator = this.indicators.check('revocations');
        const reason = this.view.staleness();
        return reason ? indicator.down(reason) : indicator.up();
      },
      () => {
        const indicator = this.indicators.check('rate_limits');
        const reason = this.limits.fault();
        return reason ? indicator.down(reason) : indicator.up();
      },
      () => this.database.pingCheck('database', { timeout: DATABASE_MS }),
    ]);
  }
}
