import { Controller, Get } from '@nestjs/common';
import { ApiOperation, ApiTags } from '@nestjs/swagger';
import { HealthCheck, HealthCheckService, HealthIndicatorService } from '@nestjs/terminus';
import { Public } from '../access/access.js';
import { RevocationView } from '../revocation/revocation-view.js';

@ApiTags('Health')
@Controller('health')
@Public({ crossOrigin: true })
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly view: RevocationView,
  ) {}

  /** The process runs. Restart it when this does not answer. */
  @Get('live')
  @ApiOperation({ operationId: 'getLiveness', summary: 'Liveness' })
  live() {
    return { status: 'ok' };
  }

  /** Migrated, keys opened, and news of revocations within the bound: send traffic here. */
  @Get('ready')
  @HealthCheck()
  @ApiOperation({ operationId: 'getReadiness', summary: 'Readiness' })
  ready() {
    return this.health.check([
      () => {
        const indicator = this.indicators.check('revocations');
        const reason = this.view.staleness();
        return reason ? indicator.down(reason) : indicator.up();
      },
    ]);
  }
}
