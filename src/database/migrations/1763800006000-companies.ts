import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Companies and employees are read by filters, changed under a version, and pushed again and again under the pusher's own id. */
export class Companies1763800006000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(`
      ALTER TABLE company ADD COLUMN version integer NOT NULL DEFAULT 1;
      -- text_pattern_ops: only so does an index serve "begins with" whatever the database's collation is.
      CREATE INDEX company_name_idx ON company (organization_id, lower(name) text_pattern_ops);
      CREATE INDEX company_uen_code_idx ON company (organization_id, uen_code, id);
      CREATE INDEX company_sector_idx ON company (organization_id, sector, id);
      CREATE INDEX company_entity_type_idx ON company (organization_id, entity_type, id);
      CREATE INDEX company_updated_at_idx ON company (organization_id, updated_at);

      ALTER TABLE employee
        -- The id that the pushing system has for the person. NULLs are distinct: without one, nothing is compared.
        ADD COLUMN external_id text,
        ADD COLUMN started_on date,
        ADD COLUMN ended_on date,
        ADD COLUMN version integer NOT NULL DEFAULT 1,
        ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
        ADD CONSTRAINT employee_external_id_key UNIQUE (organization_id, company_id, external_id);
      UPDATE employee SET updated_at = created_at;
      CREATE INDEX employee_name_idx ON employee (organization_id, company_id, lower(name) text_pattern_ops);
      CREATE INDEX employee_email_idx ON employee (organization_id, company_id, lower(email) text_pattern_ops);
      CREATE INDEX employee_department_idx ON employee (organization_id, company_id, department, id);
      CREATE INDEX employee_work_location_idx ON employee (organization_id, company_id, work_location, id);
      CREATE INDEX employee_updated_at_idx ON employee (organization_id, company_id, updated_at);`);
  }

  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      DROP INDEX employee_name_idx, employee_email_idx, employee_department_idx, employee_work_location_idx, employee_updated_at_idx;
      ALTER TABLE employee DROP CONSTRAINT employee_external_id_key, DROP COLUMN external_id, DROP COLUMN started_on,
        DROP COLUMN ended_on, DROP COLUMN version, DROP COLUMN updated_at;
      DROP INDEX company_name_idx, company_uen_code_idx, company_sector_idx, company_entity_type_idx, company_updated_at_idx;
      ALTER TABLE company DROP COLUMN version;`);
  }
}
