import 'reflect-metadata';
import cluster from 'node:cluster';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { plainToInstance, Transform, Type } from 'class-transformer';
import {
  ArrayMaxSize,
  IsEmail,
  IsIn,
  IsInt,
  IsOptional,
  IsString,
  Matches,
  Max,
  MaxLength,
  Min,
  MinLength,
  Validate,
  type ValidationArguments,
  ValidatorConstraint,
  type ValidatorConstraintInterface,
  validateSync,
} from 'class-validator';
import { MAX_RATE_LIMIT, MAX_RATE_WINDOW_SECONDS, parseRateLimit, type RateLimit } from '../kernel/rate-limit.js';
import type { Environment } from '../kernel/secret-value.js';
import { StartupError } from '../kernel/startup-error.js';
import type { MasterKeys } from '../keyring/master-keys.js';

/** Safeguards that a test may take out to prove that it notices (NODE_ENV=test only). */
export const SABOTAGES = [
  'synchronous_commit_off',
  'stamp_at_completion',
  'cursor_without_lock',
  'serve_stale',
  'jti_in_memory',
] as const;
export type Sabotage = (typeof SABOTAGES)[number];

/** What a claim, a challenge and a list of words can hold. */
const NAME = /^[\x21\x23-\x5B\x5D-\x7E]+$/;

@ValidatorConstraint()
class IsIssuer implements ValidatorConstraintInterface {
  validate(text: unknown) {
    if (typeof text !== 'string' || !URL.canParse(text)) return false;
    const url = new URL(text);
    const loopback = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
    return (
      (url.protocol === 'https:' || (url.protocol === 'http:' && loopback)) &&
      !url.username &&
      !text.endsWith('/') &&
      !/[?#]/.test(text) && // no query, no fragment
      NAME.test(text) // it is the audience as well
    );
  }
  defaultMessage = () =>
    'ISSUER_URL must be an https URL without query, fragment or a slash at its end (http for loopback only)';
}

/** RFC 8707 §2: an absolute URI without a fragment. The characters are those that a claim, a challenge and a list of words can hold. */
@ValidatorConstraint()
class IsResource implements ValidatorConstraintInterface {
  validate = (text: unknown) =>
    typeof text === 'string' &&
    /^[A-Za-z][A-Za-z0-9+.-]*:[\x21\x24-\x5B\x5D-\x7E]{1,255}$/.test(text) &&
    text.length <= 256;
  defaultMessage = () =>
    'RESOURCES must be absolute URIs without fragment, of at most 256 characters, separated by commas';
}

@ValidatorConstraint()
class IsPostgresUrl implements ValidatorConstraintInterface {
  validate = (text: unknown) =>
    typeof text === 'string' && /^postgres(ql)?:$/.test(URL.canParse(text) ? new URL(text).protocol : '');
  defaultMessage = (of?: ValidationArguments) => `${of?.property} must be a postgres:// URL`;
}

@ValidatorConstraint()
class IsRedisUrl implements ValidatorConstraintInterface {
  validate = (text: unknown) =>
    typeof text === 'string' && /^rediss?:$/.test(URL.canParse(text) ? new URL(text).protocol : '');
  defaultMessage = () => 'REDIS_URL must be a redis:// or rediss:// URL';
}

@ValidatorConstraint()
class IsRateLimit implements ValidatorConstraintInterface {
  validate = (text: unknown) => parseRateLimit(text) !== undefined;
  defaultMessage = () =>
    `RATE_LIMIT must be requests/seconds: 1 to ${MAX_RATE_LIMIT} in 1 to ${MAX_RATE_WINDOW_SECONDS}, as in 6000/60`;
}

@ValidatorConstraint()
class IsMasterKey implements ValidatorConstraintInterface {
  validate = (text: unknown) => typeof text === 'string' && /^[A-Za-z0-9+/]{43}=$/.test(text);
  defaultMessage = (of?: ValidationArguments) => `${of?.property} must be 32 bytes in base64 (openssl rand -base64 32)`;
}

const list = ({ value }: { value: unknown }) =>
  typeof value === 'string'
    ? value
        .split(',')
        .map((part) => part.trim())
        .filter(Boolean)
    : value;

/** Every setting, validated: the one place that reads the environment. Names are those of .env.example. */
export class Config {
  @IsIn(['development', 'test', 'production'])
  NODE_ENV: string = 'production';

  @Type(() => Number)
  @IsInt({ message: 'PORT must be a whole number' })
  @Min(0)
  @Max(65535)
  PORT: number = 3000;

  @IsString()
  @MinLength(1)
  HOST: string = '127.0.0.1';

  /** Processes that share the port, each a whole instance. 1: this process alone. */
  @Type(() => Number)
  @IsInt({ message: 'WORKERS must be a whole number' })
  @Min(1, { message: 'WORKERS must be 1 to 64' })
  @Max(64, { message: 'WORKERS must be 1 to 64' })
  WORKERS: number = 1;

  /** The issuer; every URL that is printed or signed comes from it. Default: `http://localhost:PORT`. */
  @Validate(IsIssuer)
  ISSUER_URL: string;

  /** Unset: embedded PostgreSQL under DATA_DIR. */
  @IsOptional()
  @Validate(IsPostgresUrl)
  DATABASE_URL?: string;

  /** The owner, who migrates and grants. Unset: DATABASE_URL does both. */
  @IsOptional()
  @Validate(IsPostgresUrl)
  MIGRATION_DATABASE_URL?: string;

  @IsString()
  @MinLength(1)
  DATA_DIR: string = 'data';

  /** 32 bytes, base64; wraps the random keys in the database. With the embedded database it is generated once. */
  @IsOptional()
  @Validate(IsMasterKey)
  MASTER_KEY?: string;

  /** The one before, while keys are still wrapped by it. */
  @IsOptional()
  @Validate(IsMasterKey)
  MASTER_KEY_PREVIOUS?: string;

  @IsIn(['live', 'test'], { message: 'ENVIRONMENT must be live or test' })
  ENVIRONMENT: Environment = 'live';

  @Matches(/^[A-Za-z0-9]{1,32}$/, { message: 'CREDENTIAL_PREFIX must be 1 to 32 letters and digits' })
  CREDENTIAL_PREFIX: string = 'client';

  /** `aud` of access tokens. Default: the issuer. */
  @IsString()
  @MinLength(1)
  @Matches(NAME, { message: 'AUDIENCE must be printable characters without space' })
  AUDIENCE: string;

  /** RFC 8707: what other APIs of the platform call themselves. An account is set to those that it may ask tokens for. */
  @Transform(list)
  @ArrayMaxSize(100, { message: 'RESOURCES must be at most 100' })
  @Validate(IsResource, { each: true })
  RESOURCES: string[] = [];

  @IsIn(['ES256', 'RS256', 'PS256'], { message: 'JWT_ALG must be ES256, RS256 or PS256' })
  JWT_ALG: 'ES256' | 'RS256' | 'PS256' = 'ES256';

  @Transform(list)
  @Matches(/^[A-Za-z0-9_-]{1,64}$/, {
    each: true,
    message: 'REALMS must be names of letters, digits, _ and -, separated by commas',
  })
  REALMS: string[] = ['gatehouse'];

  @IsIn(['published', 'rfc6749'], { message: 'GRANT_TYPE_ERRORS must be published or rfc6749' })
  GRANT_TYPE_ERRORS: 'published' | 'rfc6749' = 'published';

  /** D13: which `aud` of a client's assertion is accepted; `issuer` is RFC 7523 as RFC 10070 has narrowed it. */
  @IsIn(['issuer', 'issuer_or_endpoint'], { message: 'ASSERTION_AUDIENCE must be issuer or issuer_or_endpoint' })
  ASSERTION_AUDIENCE: 'issuer' | 'issuer_or_endpoint' = 'issuer_or_endpoint';

  @IsEmail({ require_tld: false }, { message: 'BOOTSTRAP_ADMIN_EMAIL must be an e-mail address' })
  BOOTSTRAP_ADMIN_EMAIL: string = 'admin@localhost';

  @IsOptional()
  @MinLength(8, { message: 'BOOTSTRAP_ADMIN_PASSWORD must be 8 to 128 characters' })
  @MaxLength(128, { message: 'BOOTSTRAP_ADMIN_PASSWORD must be 8 to 128 characters' })
  BOOTSTRAP_ADMIN_PASSWORD?: string;

  /** Addresses and CIDR blocks whose X-Forwarded-For counts. */
  @Transform(list)
  @Matches(/^[0-9A-Fa-f.:]+(\/\d{1,3})?$/, {
    each: true,
    message: 'TRUSTED_PROXIES must be IP addresses or CIDR blocks, separated by commas',
  })
  TRUSTED_PROXIES: string[] = [];

  /** After this many ms without news of revocations an instance accepts nothing. */
  @Type(() => Number)
  @IsInt({ message: 'REVOCATION_BOUND_MS must be a whole number' })
  @Min(200, { message: 'REVOCATION_BOUND_MS must be 200 to 10000' })
  @Max(10_000, { message: 'REVOCATION_BOUND_MS must be 200 to 10000' })
  REVOCATION_BOUND_MS: number = 500;

  @Type(() => Number)
  @IsInt({ message: 'MAX_SECRETS_PER_ACCOUNT must be a whole number' })
  @Min(1)
  @Max(1000)
  MAX_SECRETS_PER_ACCOUNT: number = 20;

  @Type(() => Number)
  @IsInt({ message: 'MAX_PERSONAL_ACCESS_TOKENS must be a whole number' })
  @Min(1)
  @Max(1000)
  MAX_PERSONAL_ACCESS_TOKENS: number = 50;

  @Type(() => Number)
  @IsInt({ message: 'MAX_PAT_LIFETIME_DAYS must be a whole number' })
  @Min(1)
  @Max(3650)
  MAX_PAT_LIFETIME_DAYS: number = 365;

  @Type(() => Number)
  @IsInt({ message: 'MAX_KEYS_PER_ACCOUNT must be a whole number' })
  @Min(1)
  @Max(1000)
  MAX_KEYS_PER_ACCOUNT: number = 20;

  /** Access tokens of one organization that were revoked one by one and have not expired; whoever needs more revokes a secret. */
  @Type(() => Number)
  @IsInt({ message: 'MAX_TOKEN_REVOCATIONS_PER_ORGANIZATION must be a whole number' })
  @Min(1)
  @Max(1_000_000)
  MAX_TOKEN_REVOCATIONS_PER_ORGANIZATION: number = 10_000;

  @Type(() => Number)
  @IsInt({ message: 'MAX_ORGANIZATIONS_BENEATH must be a whole number' })
  @Min(1)
  @Max(1_000_000)
  MAX_ORGANIZATIONS_BENEATH: number = 1000;

  @Type(() => Number)
  @IsInt({ message: 'MAX_CREDENTIALS_PER_ORGANIZATION must be a whole number' })
  @Min(1)
  @Max(1_000_000)
  MAX_CREDENTIALS_PER_ORGANIZATION: number = 10_000;

  /** Requests an organization in so many seconds, where it has no `rate_limit` of its own. */
  @Validate(IsRateLimit)
  RATE_LIMIT: string = '6000/60';

  /** Redis or Valkey: exact rate limits over all instances. Unset: PostgreSQL counts, with a slack of a tenth. */
  @IsOptional()
  @Validate(IsRedisUrl)
  REDIS_URL?: string;

  /** How long verifiers may cache the JWKS; a new signing key is published for twice as long before it signs. */
  @Type(() => Number)
  @IsInt({ message: 'JWKS_MAX_AGE_SECONDS must be a whole number' })
  @Min(0)
  @Max(86_400)
  JWKS_MAX_AGE_SECONDS: number = 300;

  /** A signing key that has been in use for so many days is followed by the next. 0: by command alone. */
  @Type(() => Number)
  @IsInt({ message: 'SIGNING_KEY_ROTATION_DAYS must be a whole number' })
  @Min(0, { message: 'SIGNING_KEY_ROTATION_DAYS must be 0 to 365' })
  @Max(365, { message: 'SIGNING_KEY_ROTATION_DAYS must be 0 to 365' })
  SIGNING_KEY_ROTATION_DAYS: number = 30;

  @IsIn(['trace', 'debug', 'info', 'warn', 'error', 'silent'], {
    message: 'LOG_LEVEL must be trace, debug, info, warn, error or silent',
  })
  LOG_LEVEL: string = 'info';

  @Transform(list)
  @IsIn(SABOTAGES, { each: true, message: `SABOTAGE must be out of ${SABOTAGES.join(', ')}` })
  SABOTAGE: Sabotage[] = [];

  /** MASTER_KEY or the file that stands in for it, read at start. Not a setting: never in a listing of them. */
  masterKeys: MasterKeys;

  /** DATA_DIR as an absolute path. */
  get dataDir(): string {
    return path.resolve(this.DATA_DIR);
  }

  /** Whether this deployment is reached over https: decides cookie attributes and HSTS. */
  get https(): boolean {
    return this.ISSUER_URL.startsWith('https:');
  }

  get rateLimit(): RateLimit {
    return parseRateLimit(this.RATE_LIMIT)!;
  }

  sabotaged(safeguard: Sabotage): boolean {
    return this.SABOTAGE.includes(safeguard);
  }
}

/** Reads and validates the settings; throws a StartupError (exit 78) that lists every fault at once. Empty variables count as unset. */
export function loadConfig(env: NodeJS.ProcessEnv = readEnvironment()): Config {
  const names = Object.keys(new Config()).concat(
    'ISSUER_URL',
    'DATABASE_URL',
    'MIGRATION_DATABASE_URL',
    'MASTER_KEY',
    'MASTER_KEY_PREVIOUS',
    'AUDIENCE',
    'BOOTSTRAP_ADMIN_PASSWORD',
    'REDIS_URL',
  );
  const given = Object.fromEntries(names.filter((name) => env[name]).map((name) => [name, env[name]]));
  given.ISSUER_URL ??= `http://localhost:${given.PORT ?? 3000}`;
  given.AUDIENCE ??= given.ISSUER_URL;
  const config = plainToInstance(Config, given, { exposeDefaultValues: true });
  // What is not set has a default, and the only ones that can be wrong come from a setting that is named already.
  const wrong = validateSync(config).filter(({ property }) => env[property]);
  const faults = wrong.flatMap((error) => Object.values(error.constraints ?? {}).slice(-1));
  if (given.DATABASE_URL && !given.MASTER_KEY)
    faults.push('MASTER_KEY is required with DATABASE_URL (openssl rand -base64 32)');
  if (given.MASTER_KEY_PREVIOUS && !given.MASTER_KEY) faults.push('MASTER_KEY_PREVIOUS needs MASTER_KEY');
  if (given.MIGRATION_DATABASE_URL && !given.DATABASE_URL) faults.push('MIGRATION_DATABASE_URL needs DATABASE_URL');
  if (config.SABOTAGE.length > 0 && config.NODE_ENV !== 'test')
    faults.push('SABOTAGE is for tests: it needs NODE_ENV=test');
  if (faults.length > 0)
    throw new StartupError(
      `The configuration has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}:\n${faults.map((fault) => `  - ${fault}`).join('\n')}`,
      78,
    );
  return config;
}

function readEnvironment(): NodeJS.ProcessEnv {
  const file = path.resolve('.env');
  // What is set in the environment wins over the file. A worker has in it what the file said when the service was started.
  if (cluster.isPrimary && existsSync(file)) process.loadEnvFile(file);
  return process.env;
}
