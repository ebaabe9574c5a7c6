import { Body, Controller, Delete, Get, HttpCode, Param, Patch, Post, Query, Res } from '@nestjs/common';
import {
  ApiCreatedResponse,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiProperty,
  ApiTags,
} from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import { IsBoolean, IsEmail, IsIn, IsString, MaxLength } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, RequireScopes, SignedIn, StepUp } from '../access/access.js';
import { IsDisplayName, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { setSessionCookie } from '../access/session-cookie.js';
import { Config } from '../config/config.js';
import type { Caller } from '../kernel/actor.js';
import { ROLES, type Role } from '../kernel/scope.js';
import { Cursors } from '../keyring/cursors.js';
import type { MembershipStatus } from '../organizations/membership.entity.js';
import type { SessionCaller } from '../organizations/sessions.service.js';
import { MAX_EMAIL_LENGTH, normalizeEmail } from '../organizations/user.entity.js';
import { type Member, Users } from '../organizations/users.service.js';

/** How long a password is, is judged in code points by the service; this only bounds the work. */
const MAX_PASSWORD_UNITS = 1024;

export class CreateUser {
  /** Of somebody whom the platform knows already: they are invited, and neither their name nor their password is touched. */
  @Transform(({ value }) => (typeof value === 'string' ? normalizeEmail(value) : value))
  @IsEmail({ require_tld: false })
  @MaxLength(MAX_EMAIL_LENGTH)
  email: string;

  @IsDisplayName()
  name: string;

  /** 8 to 128 characters. Set here, or by the person: nobody can set it later for another. */
  @Omittable()
  @IsString()
  @MaxLength(MAX_PASSWORD_UNITS)
  password?: string;

  /** `platform_admin` in the platform's own organization only. */
  @ApiProperty({ enum: [...ROLES] })
  @IsIn(ROLES)
  role: Role;
}

export class UpdateUser {
  @ApiProperty({ enum: [...ROLES], required: false })
  @Omittable()
  @IsIn(ROLES)
  role?: Role;

  /** True ends the person's sessions in this organization. */
  @Omittable()
  @IsBoolean()
  disabled?: boolean;
}

export class UpdateMe {
  @Omittable()
  @IsDisplayName()
  name?: string;

  /** 8 to 128 characters. Ends your other sessions and renews this one's cookie. */
  @Omittable()
  @IsString()
  @MaxLength(MAX_PASSWORD_UNITS)
  password?: string;
}

/** A person as this organization sees them. */
export class UserView {
  id: string;
  email: string;

  /** Null until an invited person joins. */
  name: string | null;

  @ApiProperty({ enum: [...ROLES] })
  role: Role;

  @ApiProperty({ enum: ['active', 'invited', 'disabled'] })
  status: MembershipStatus;

  /** When they became a member or were invited. */
  created_at: Date;
}

export class UserList {
  data: UserView[];
  next_cursor: string | null;
}

export class Me {
  id: string;
  email: string;
  name: string;
  must_change_password: boolean;
  password_changed_at: Date | null;
  created_at: Date;
}

@ApiTags('Users')
@Controller('api/v1/users')
export class UsersController {
  constructor(
    private readonly users: Users,
    private readonly cursors: Cursors,
    private readonly config: Config,
  ) {}

  @Get('me')
  @SignedIn()
  @ApiOperation({ operationId: 'getMe', summary: 'Yourself' })
  @ApiOkResponse({ type: Me })
  async me(@CurrentCaller() caller: SessionCaller): Promise<Me> {
    const user = await this.users.me(caller);
    return {
      id: user.id,
      email: user.email,
      name: user.name,
      must_change_password: user.mustChangePassword,
      password_changed_at: user.passwordChangedAt,
      created_at: user.createdAt,
    };
  }

  @Patch('me')
  @SignedIn()
  @StepUp()
  @ApiOperation({ operationId: 'updateMe', summary: 'Change your name or password' })
  @ApiOkResponse({ type: Me })
  async updateMe(
    @CurrentCaller() caller: SessionCaller,
    @Body() body: UpdateMe,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<Me> {
    setSessionCookie(reply, this.config, await this.users.updateMe(caller, body));
    return this.me(caller);
  }

  @Get()
  @RequireScopes('admin:access')
  @ApiOperation({ operationId: 'listUsers', summary: 'Members of this organization, and those invited' })
  @ApiOkResponse({ type: UserList })
  list(@CurrentCaller() caller: Caller, @Query() query: PageQuery): Promise<UserList> {
    return page(this.cursors, { route: 'users', organizationId: caller.organizationId }, query, async (limit, after) =>
      (await this.users.list(caller, limit, after?.[0])).map(userView),
    );
  }

  @Post()
  @RequireScopes('admin:access')
  @StepUp()
  @ApiOperation({ operationId: 'createUser', summary: 'Make a person a member, or invite one who has a user already' })
  @ApiCreatedResponse({ type: UserView })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() body: CreateUser,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<UserView> {
    const { result, replayed } = await this.users.create(caller, body);
    if (replayed) reply.header('idempotent-replayed', 'true');
    return userView(result);
  }

  @Get(':id')
  @RequireScopes('admin:access')
  @ApiOperation({ operationId: 'getUser', summary: 'One member' })
  @ApiOkResponse({ type: UserView })
  async get(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<UserView> {
    return userView(await this.users.get(caller, id));
  }

  @Patch(':id')
  @RequireScopes('admin:access')
  @StepUp()
  @ApiOperation({ operationId: 'updateUser', summary: "Change a member's role, disable or enable them here" })
  @ApiOkResponse({ type: UserView })
  async update(@CurrentCaller() caller: Caller, @Param('id') id: string, @Body() body: UpdateUser): Promise<UserView> {
    return userView(await this.users.update(caller, id, body));
  }

  @Delete(':id')
  @RequireScopes('admin:access')
  @HttpCode(204)
  @ApiOperation({
    operationId: 'deleteUser',
    summary: 'End a membership',
    description: 'The person and their other memberships stay.',
  })
  @ApiNoContentResponse()
  async remove(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<void> {
    await this.users.remove(caller, id);
  }
}

/** Times pass through untouched: in an answer that is repeated under its Idempotency-Key they are text already. */
export const userView = (member: Member): UserView => ({
  id: member.id,
  email: member.email,
  name: member.name,
  role: member.role,
  status: member.status,
  created_at: member.createdAt,
});
