import { JWT_BEARER } from '../support/assertions.js';
import { basic } from '../support/service.js';
import type { Args, History, Op, Operation } from './history.js';
import type { HttpAnswer } from './http-client.js';
import type { Instance } from './rig.js';

export interface Credential {
  organizationId: string;
  accountId: string;
  clientId: string;
  secretId: string;
  secret: string;
}

/** A token that was handed out: its text, and the number of its issuance in the history. */
export interface Token extends Credential {
  text: string;
  token: number;
}

export type TokenFormat = 'opaque' | 'jwt';

const about = ({ organizationId, accountId, secretId }: Args): Args => ({ organizationId, accountId, secretId });

/** Asks something of an instance and writes down what came of it. */
export async function perform(
  history: History,
  instance: Instance,
  op: Op,
  args: Args,
  ask: () => Promise<HttpAnswer | undefined>,
): Promise<{ answer: HttpAnswer | undefined; operation: Operation }> {
  const n = history.next();
  const t_invoke = performance.now();
  const answer = await ask();
  const status = answer?.status ?? 0;
  const operation: Operation = {
    op,
    n,
    id: (answer?.headers['x-request-id'] as string) ?? null,
    args,
    t_invoke,
    t_return: performance.now(),
    outcome: status >= 200 && status < 300 ? 'ok' : status >= 400 && status < 500 ? 'fail' : 'unknown',
    status,
    instance: instance.name,
  };
  history.add(operation);
  return { answer, operation };
}

/** Asks for a token; undefined when none was given. */
export async function issue(
  history: History,
  instance: Instance,
  credential: Credential,
  scope?: string,
): Promise<{ token: Token | undefined; answer: HttpAnswer | undefined }> {
  const headers = {
    authorization: basic({ id: credential.clientId, secret: credential.secret }),
    'content-type': 'application/x-www-form-urlencoded',
  };
  const form = new URLSearchParams({ grant_type: 'client_credentials', ...(scope && { scope }) }).toString();
  const { answer, operation } = await perform(history, instance, 'token', about(credential), () =>
    instance.http.request('POST', '/oauth/token', headers, form),
  );
  if (operation.outcome !== 'ok') return { token: undefined, answer };
  const text: string = answer!.json.access_token;
  if (text.startsWith('eyJ')) {
    const { gatehouse_epochs: epochs } = JSON.parse(Buffer.from(text.split('.')[1], 'base64url').toString());
    operation.epochs = [epochs.era, epochs.organization, epochs.account, epochs.credential];
  }
  return { token: { ...credential, text, token: operation.n }, answer };
}

/** Asks for a token with an assertion, by its number in the history and its text. */
export async function presentAssertion(
  history: History,
  instance: Instance,
  { organizationId, accountId }: Credential,
  assertion: { n: number; text: string },
): Promise<HttpAnswer | undefined> {
  const form = {
    grant_type: 'client_credentials',
    client_assertion_type: JWT_BEARER,
    client_assertion: assertion.text,
  };
  const headers = { 'content-type': 'application/x-www-form-urlencoded' };
  const args = { organizationId, accountId, assertion: assertion.n };
  const { answer } = await perform(history, instance, 'token', args, () =>
    instance.http.request('POST', '/oauth/token', headers, new URLSearchParams(form).toString()),
  );
  return answer;
}

/** A guarded GET with a token. */
export async function use(history: History, instance: Instance, token: Token): Promise<HttpAnswer | undefined> {
  const { answer } = await perform(history, instance, 'guarded', { ...about(token), token: token.token }, () =>
    instance.http.request('GET', '/companies?limit=1', { authorization: `Bearer ${token.text}` }),
  );
  return answer;
}

export async function createCompany(
  history: History,
  instance: Instance,
  token: Token,
  name: string,
): Promise<HttpAnswer | undefined> {
  const { answer } = await perform(
    history,
    instance,
    'company.create',
    { ...about(token), token: token.token, name },
    () => instance.http.request('POST', '/companies', { authorization: `Bearer ${token.text}` }, { name }),
  );
  return answer;
}

/** The platform's admin, over whichever instance it is told; a session is good on all of them. */
export class Admin {
  organizationId = '';

  private constructor(
    private readonly history: History,
    private readonly home: Instance,
    private readonly who: { email: string; password: string },
    private cookie: string,
  ) {}

  static async signIn(history: History, home: Instance, who: { email: string; password: string }): Promise<Admin> {
    const answer = await home.http.request('POST', '/api/v1/session', {}, who);
    if (answer?.status !== 201) throw new Error(`sign-in: ${answer?.status} ${JSON.stringify(answer?.json)}`);
    return new Admin(history, home, who, cookieOf(answer));
  }

  /** An operation of the admin's, in the history. */
  async perform(
    op: Op,
    args: Args,
    method: string,
    path: string,
    body?: object,
    instance = this.home,
  ): Promise<{ answer: HttpAnswer | undefined; operation: Operation }> {
    const headers = { cookie: this.cookie };
    return perform(this.history, instance, op, args, () =>
      instance.http.request(method, `/api/v1${path}`, headers, body),
    );
  }

  /** A change that must be acknowledged. */
  async change(method: string, path: string, body?: object, instance = this.home): Promise<HttpAnswer['json']> {
    return acknowledged(await this.perform('change', {}, method, path, body, instance));
  }

  /** Another person of the same rights, whose session is turned elsewhere. */
  again(): Promise<Admin> {
    return Admin.signIn(this.history, this.home, this.who);
  }

  /** A new organization, and this session turned to it. */
  async createOrganization(name: string): Promise<string> {
    this.organizationId = (await this.change('POST', '/organizations', { name })).id;
    const { answer, operation } = await this.perform('change', {}, 'PATCH', '/session', {
      organization_id: this.organizationId,
    });
    acknowledged({ answer, operation });
    this.cookie = cookieOf(answer!);
    return this.organizationId;
  }

  async createAccount(name: string, format: TokenFormat = 'opaque'): Promise<Credential> {
    const account = await this.change('POST', '/service-accounts', {
      name,
      scopes: ['companies:read', 'companies:write'],
      token_format: format,
    });
    return this.createSecret({
      organizationId: this.organizationId,
      accountId: account.id,
      clientId: account.client_id,
      secretId: '',
      secret: '',
    });
  }

  /** A public key of the account. */
  async registerKey({ accountId }: Credential, jwk: Record<string, unknown>): Promise<void> {
    await this.change('POST', `/service-accounts/${accountId}/keys`, { jwk });
  }

  /** Another secret of the account. */
  async createSecret(account: Credential, instance = this.home): Promise<Credential> {
    const made = await this.tryCreateSecret(account, instance);
    if (!made) throw new Error(`no secret for ${account.accountId} on ${instance.name}`);
    return made;
  }

  async tryCreateSecret(account: Credential, instance = this.home): Promise<Credential | undefined> {
    const args = { organizationId: account.organizationId, accountId: account.accountId };
    const path = `/service-accounts/${account.accountId}/secrets`;
    const { answer, operation } = await this.perform('secret.create', args, 'POST', path, {}, instance);
    return operation.outcome === 'ok'
      ? { ...account, secretId: answer!.json.id, secret: answer!.json.secret }
      : undefined;
  }

  tryRevoke(credential: Credential, instance = this.home, reason?: string) {
    const path = `/service-accounts/${credential.accountId}/secrets/${credential.secretId}/revoke`;
    return this.perform('secret.revoke', about(credential), 'POST', path, { reason }, instance);
  }

  /** Revokes a secret and answers with the receipt. */
  async revoke(credential: Credential, instance = this.home, reason?: string): Promise<HttpAnswer['json']> {
    return acknowledged(await this.tryRevoke(credential, instance, reason));
  }

  async setAccount(credential: Credential, what: 'disable' | 'enable', instance = this.home): Promise<void> {
    const { organizationId, accountId } = credential;
    const path = `/service-accounts/${accountId}/${what}`;
    acknowledged(await this.perform(`account.${what}`, { organizationId, accountId }, 'POST', path, {}, instance));
  }

  async setOrganization(organizationId: string, what: 'disable' | 'enable', instance = this.home): Promise<void> {
    const body = { disabled: what === 'disable' };
    const path = `/organizations/${organizationId}`;
    acknowledged(await this.perform(`organization.${what}`, { organizationId }, 'PATCH', path, body, instance));
  }
}

function acknowledged({ answer, operation }: { answer: HttpAnswer | undefined; operation: Operation }) {
  if (operation.outcome !== 'ok')
    throw new Error(`${operation.op} on ${operation.instance}: ${operation.status} ${JSON.stringify(answer?.json)}`);
  return answer!.json;
}

const cookieOf = (answer: HttpAnswer) =>
  (answer.headers['set-cookie'] ?? []).map((line) => line.split(';', 1)[0]).join('; ');
