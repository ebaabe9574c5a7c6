import type { MigrationInterface, QueryRunner } from 'typeorm';

/** People at a session have a budget of their own: windows are of an organization or of a person. */
export class RateLimitsOfPeople1763800008000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query('ALTER TABLE rate_limit_window RENAME COLUMN organization_id TO subject_id');
  }

  async down(q: QueryRunner): Promise<void> {
    await q.query('ALTER TABLE rate_limit_window RENAME COLUMN subject_id TO organization_id');
  }
}
