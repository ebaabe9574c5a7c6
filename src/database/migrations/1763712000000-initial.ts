import type { MigrationInterface, QueryRunner } from 'typeorm';
import { PLATFORM_ORGANIZATION } from '../../kernel/actor.js';
import { BUILT_IN_SCOPES } from '../../kernel/scope.js';

/** The first schema. Never edited after landing: what changes is a migration of its own. */
export class Initial1763712000000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(revocation);
    await q.query(keyring);
    await q.query(audit);
    await q.query(organizations);
    await q.query(serviceAccounts);
    await q.query(companies);
    await q.query(
      `INSERT INTO organization (id, name, platform) VALUES ('${PLATFORM_ORGANIZATION}', 'Platform', true)`,
    );
    await q.query(
      `INSERT INTO revocable (id, kind, organization_id) VALUES ('${PLATFORM_ORGANIZATION}', 'organization', '${PLATFORM_ORGANIZATION}')`,
    );
    for (const [name, description] of Object.entries(BUILT_IN_SCOPES)) {
      await q.query('INSERT INTO scope (name, description, built_in) VALUES ($1, $2, true)', [name, description]);
    }
  }

  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      DROP TABLE employee, company, secret, service_account, scope, session, membership, "user", organization,
        idempotency_key, audit_event, keyring_key, revocation, revocable, instance, era;
      DROP SEQUENCE revocation_id_seq;
      DROP FUNCTION audit_event_make_partitions(integer), audit_event_refuse_change(), revocable_refuse_fall(), era_refuse_fall(), revocation_refuse_delete();`);
  }
}

const revocation = `
  -- One row. Raising the era kills every token from before; a restored backup betrays itself by an era or a feed that fell.
  CREATE TABLE era (
    singleton boolean CONSTRAINT era_pkey PRIMARY KEY DEFAULT true CONSTRAINT era_singleton_check CHECK (singleton),
    era integer NOT NULL DEFAULT 1,
    raised_at timestamptz NOT NULL DEFAULT now()
  );
  INSERT INTO era DEFAULT VALUES;
  CREATE FUNCTION era_refuse_fall() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF NEW.era >= OLD.era THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'the era only rises' USING ERRCODE = 'restrict_violation';
  END $$;
  CREATE TRIGGER era_refuse_fall BEFORE UPDATE ON era FOR EACH ROW EXECUTE FUNCTION era_refuse_fall();

  CREATE TABLE instance (
    id uuid CONSTRAINT instance_pkey PRIMARY KEY,
    bound_ms integer NOT NULL,
    confirmed bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
  );

  -- Everything that a token or a session can hang on, with the epoch that only rises.
  CREATE TABLE revocable (
    id uuid CONSTRAINT revocable_pkey PRIMARY KEY,
    kind text NOT NULL,
    organization_id uuid NOT NULL,
    epoch integer NOT NULL DEFAULT 0,
    CONSTRAINT revocable_epoch_check CHECK (epoch >= 0)
  );
  CREATE FUNCTION revocable_refuse_fall() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    -- What is absent is dead, so an ended session's row may go; nothing else may, lest it came back at epoch 0.
    IF TG_OP = 'DELETE' THEN
      IF OLD.kind = 'session' THEN RETURN OLD; END IF;
    ELSIF NEW.epoch >= OLD.epoch AND NEW.id = OLD.id AND NEW.kind = OLD.kind THEN
      RETURN NEW;
    END IF;
    RAISE EXCEPTION 'epochs only rise' USING ERRCODE = 'restrict_violation';
  END $$;
  CREATE TRIGGER revocable_refuse_fall BEFORE UPDATE OR DELETE ON revocable FOR EACH ROW EXECUTE FUNCTION revocable_refuse_fall();

  -- The feed. Ids are drawn under an advisory lock that lasts until commit, so id order is commit order.
  CREATE SEQUENCE revocation_id_seq CACHE 1;
  CREATE TABLE revocation (
    id bigint CONSTRAINT revocation_pkey PRIMARY KEY,
    kind text NOT NULL,
    subject_id uuid NOT NULL,
    subject_name text NOT NULL,
    organization_id uuid NOT NULL,
    -- Null: nothing is revoked, what is cached of the subject is to be forgotten.
    epoch integer,
    reason text,
    actor_type text NOT NULL,
    actor_id uuid,
    actor_name text NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    matters_until timestamptz NOT NULL
  );
  CREATE FUNCTION revocation_refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    RAISE EXCEPTION 'what was revoked stays revoked' USING ERRCODE = 'restrict_violation';
  END $$;
  CREATE TRIGGER revocation_refuse_delete BEFORE DELETE ON revocation
    FOR EACH ROW WHEN (OLD.epoch IS NOT NULL) EXECUTE FUNCTION revocation_refuse_delete();
  CREATE INDEX revocation_organization_id_idx ON revocation (organization_id, id) WHERE epoch IS NOT NULL;
  CREATE INDEX revocation_subject_id_idx ON revocation (subject_id, id) WHERE epoch IS NOT NULL;
  CREATE INDEX revocation_matters_until_idx ON revocation (matters_until) WHERE epoch IS NOT NULL;`;

const keyring = `
  CREATE TABLE keyring_key (
    id uuid CONSTRAINT keyring_key_pkey PRIMARY KEY,
    purpose text NOT NULL,
    algorithm text NOT NULL,
    state text NOT NULL CONSTRAINT keyring_key_state_check CHECK (state IN ('pending', 'active', 'retiring', 'retired')),
    wrapped bytea,
    master_key_id text NOT NULL,
    kid text NOT NULL,
    public_jwk jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    activates_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    activated_at timestamptz,
    retiring_at timestamptz,
    retired_at timestamptz,
    CONSTRAINT keyring_key_kid_key UNIQUE (kid)
  );
  CREATE UNIQUE INDEX keyring_key_pending_key ON keyring_key (purpose) WHERE state = 'pending';
  CREATE UNIQUE INDEX keyring_key_active_key ON keyring_key (purpose) WHERE state = 'active';`;

const audit = `
  CREATE TABLE audit_event (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL CONSTRAINT audit_event_outcome_check CHECK (outcome IN ('success', 'failure')),
    reason text,
    actor_type text NOT NULL,
    actor_id uuid,
    actor_name text NOT NULL,
    actor_organization_id uuid NOT NULL,
    on_behalf_of jsonb,
    credential_id uuid,
    token_id uuid,
    targets jsonb NOT NULL DEFAULT '[]',
    target_ids text[],
    request_id text NOT NULL,
    address text,
    user_agent text,
    changes jsonb,
    -- What sealing needs; an append-only table cannot be given it later.
    schema_version smallint NOT NULL,
    boot_id uuid NOT NULL,
    counter bigint NOT NULL,
    xid8 xid8 NOT NULL DEFAULT pg_current_xact_id(),
    CONSTRAINT audit_event_pkey PRIMARY KEY (organization_id, id)
  ) PARTITION BY RANGE (id);
  CREATE INDEX audit_event_actor_id_idx ON audit_event (organization_id, actor_id, id);
  CREATE INDEX audit_event_actor_name_idx ON audit_event (organization_id, actor_name, id);
  CREATE INDEX audit_event_action_idx ON audit_event (organization_id, action, id);
  CREATE INDEX audit_event_failure_idx ON audit_event (organization_id, id) WHERE outcome = 'failure';
  CREATE INDEX audit_event_credential_id_idx ON audit_event (organization_id, credential_id, id);
  CREATE INDEX audit_event_request_id_idx ON audit_event (organization_id, request_id, id);
  CREATE INDEX audit_event_target_ids_idx ON audit_event USING gin (target_ids) WHERE target_ids IS NOT NULL;

  CREATE FUNCTION audit_event_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    RAISE EXCEPTION 'audit events are append-only' USING ERRCODE = 'restrict_violation';
  END $$;
  CREATE TRIGGER audit_event_refuse_change BEFORE UPDATE OR DELETE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_event_refuse_change();
  CREATE TRIGGER audit_event_refuse_truncate BEFORE TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION audit_event_refuse_change();

  -- Months ahead as partitions, bounded at the UUIDv7 of each month's first millisecond. The application's role may call it.
  CREATE FUNCTION audit_event_make_partitions(ahead integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  DECLARE
    month timestamp;
    made integer := 0;
    partition text;
    bound text[];
  BEGIN
    IF ahead NOT BETWEEN 0 AND 24 THEN
      RAISE EXCEPTION 'ahead is 0 to 24 months' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(7315, 3);
    FOR step IN -1 .. ahead LOOP
      month := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => step);
      partition := 'audit_event_' || to_char(month, 'YYYY_MM');
      CONTINUE WHEN to_regclass('public.' || partition) IS NOT NULL;
      SELECT array_agg(overlay(overlay(lpad(to_hex((extract(epoch FROM m AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0')
               || '00000000000000000000' placing '-' from 9 for 0) placing '-' from 14 for 0))
        INTO bound FROM unnest(ARRAY[month, month + interval '1 month']) AS m;
      EXECUTE format('CREATE TABLE public.%I PARTITION OF public.audit_event FOR VALUES FROM (%L::uuid) TO (%L::uuid)',
        partition, bound[1], bound[2]);
      EXECUTE format('CREATE TRIGGER audit_event_refuse_truncate BEFORE TRUNCATE ON public.%I
        FOR EACH STATEMENT EXECUTE FUNCTION public.audit_event_refuse_change()', partition);
      made := made + 1;
    END LOOP;
    RETURN made;
  END $$;
  REVOKE ALL ON FUNCTION audit_event_make_partitions(integer) FROM PUBLIC;
  SELECT audit_event_make_partitions(2);

  CREATE TABLE idempotency_key (
    caller_id uuid NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    response jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_key_pkey PRIMARY KEY (caller_id, route, key)
  );
  CREATE INDEX idempotency_key_created_at_idx ON idempotency_key (created_at);`;

const organizations = `
  CREATE TABLE organization (
    id uuid CONSTRAINT organization_pkey PRIMARY KEY,
    name text NOT NULL,
    parent_id uuid CONSTRAINT organization_parent_id_fkey REFERENCES organization (id),
    -- Null: no ceiling of its own; everything but platform:*.
    scope_ceiling text[],
    platform boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz,
    CONSTRAINT organization_name_key UNIQUE (name)
  );
  CREATE INDEX organization_parent_id_idx ON organization (parent_id);
  CREATE UNIQUE INDEX organization_platform_key ON organization (platform) WHERE platform;

  CREATE TABLE "user" (
    id uuid CONSTRAINT user_pkey PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    password_hash text,
    password_changed_at timestamptz,
    must_change_password boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT user_email_key UNIQUE (email)
  );

  CREATE TABLE membership (
    organization_id uuid NOT NULL CONSTRAINT membership_organization_id_fkey REFERENCES organization (id),
    id uuid NOT NULL,
    user_id uuid NOT NULL CONSTRAINT membership_user_id_fkey REFERENCES "user" (id),
    role text NOT NULL CONSTRAINT membership_role_check CHECK (role IN ('admin', 'auditor', 'platform_admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    disabled_at timestamptz,
    CONSTRAINT membership_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT membership_user_key UNIQUE (organization_id, user_id)
  );
  CREATE INDEX membership_user_id_idx ON membership (user_id);

  CREATE TABLE session (
    id uuid CONSTRAINT session_pkey PRIMARY KEY,
    token_hash bytea NOT NULL,
    hash_key_id uuid NOT NULL,
    user_id uuid NOT NULL CONSTRAINT session_user_id_fkey REFERENCES "user" (id),
    organization_id uuid NOT NULL CONSTRAINT session_organization_id_fkey REFERENCES organization (id),
    address text,
    user_agent text,
    created_at timestamptz NOT NULL,
    authenticated_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    CONSTRAINT session_token_hash_key UNIQUE (token_hash)
  );
  CREATE INDEX session_user_id_idx ON session (user_id, id);
  CREATE INDEX session_organization_id_idx ON session (organization_id);

  CREATE TABLE scope (
    name text CONSTRAINT scope_pkey PRIMARY KEY,
    description text NOT NULL,
    built_in boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
  );`;

const serviceAccounts = `
  CREATE TABLE service_account (
    organization_id uuid NOT NULL CONSTRAINT service_account_organization_id_fkey REFERENCES organization (id),
    id uuid NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    scopes text[] NOT NULL,
    token_format text NOT NULL,
    token_ttl_seconds integer NOT NULL CONSTRAINT service_account_token_ttl_seconds_check CHECK (token_ttl_seconds BETWEEN 60 AND 86400),
    -- Null: every method that the server speaks.
    client_auth_methods text[],
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz,
    -- A tombstone: the client id is never used again, the name may be.
    deleted_at timestamptz,
    CONSTRAINT service_account_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT service_account_id_key UNIQUE (id)
  );
  CREATE UNIQUE INDEX service_account_name_key ON service_account (organization_id, lower(name)) WHERE deleted_at IS NULL;
  CREATE INDEX service_account_created_at_idx ON service_account (organization_id, created_at, id);
  CREATE INDEX service_account_name_idx ON service_account (organization_id, name, id);

  CREATE TABLE secret (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    service_account_id uuid NOT NULL,
    label text NOT NULL DEFAULT '',
    hint text NOT NULL,
    hash bytea NOT NULL,
    hash_key_id uuid NOT NULL,
    created_by_type text NOT NULL,
    created_by_id uuid,
    created_by_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT secret_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT secret_service_account_id_fkey FOREIGN KEY (organization_id, service_account_id)
      REFERENCES service_account (organization_id, id)
  );
  CREATE INDEX secret_service_account_id_idx ON secret (organization_id, service_account_id, id);`;

const companies = `
  CREATE TABLE company (
    organization_id uuid NOT NULL CONSTRAINT company_organization_id_fkey REFERENCES organization (id),
    id uuid NOT NULL,
    name text NOT NULL,
    uen_code text,
    sector text,
    entity_type text,
    entity_sub_type text,
    work_locations jsonb NOT NULL DEFAULT '[]',
    departments jsonb NOT NULL DEFAULT '[]',
    -- The actor that made it: a service account or a person. It stays when its creator is deleted.
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT company_pkey PRIMARY KEY (organization_id, id)
  );
  CREATE INDEX company_created_by_idx ON company (organization_id, created_by, id);

  CREATE TABLE employee (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    company_id uuid NOT NULL,
    name text NOT NULL,
    email text,
    job_title text,
    department text,
    work_location text,
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT employee_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT employee_company_id_fkey FOREIGN KEY (organization_id, company_id) REFERENCES company (organization_id, id)
  );
  CREATE INDEX employee_company_id_idx ON employee (organization_id, company_id, id);`;
