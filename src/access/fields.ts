import { applyDecorators } from '@nestjs/common';
import { ApiProperty } from '@nestjs/swagger';
import {
  IsISO8601,
  IsString,
  Matches,
  MaxLength,
  ValidateBy,
  ValidateIf,
  type ValidationOptions,
} from 'class-validator';

/** May be left out; null is a value like any other, which the field's own rules refuse. (`IsOptional` would let it through.) */
export const Omittable = () => ValidateIf((_, value) => value !== undefined);

/** May be left out, and null says that there is none. */
export const Nullable = () => ValidateIf((_, value) => value !== undefined && value !== null);

/** What people read in one line: 1 to `max` characters, not all of them blank, none of them a control character. */
export const IsLine = (max: number, { each }: ValidationOptions = {}) => {
  const options = { each, message: `$property must be 1 to ${max} printable characters` };
  return applyDecorators(
    // The documentation sees no rule within another decorator.
    ...(each ? [] : [ApiProperty({ minLength: 1, maxLength: max })]),
    IsString({ each }),
    MaxLength(max, options),
    Matches(/^(?=.*\S)[^\p{Cc}\p{Cs}\u2028\u2029]+$/u, options),
  );
};

export const IsDisplayName = () => IsLine(200);

/** RFC 3339 leaves no hour open: a time without its offset means another moment on another machine. */
const OFFSET = /T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/;

/** A moment from 1970 on in RFC 3339. ISO 8601 alone has weeks, ordinal days and hours of nowhere, which `Date` does not read. */
export const IsInstant = () =>
  applyDecorators(
    ApiProperty({ format: 'date-time' }),
    IsISO8601({ strict: true, strictSeparator: true }),
    ValidateBy({
      name: 'isInstant',
      validator: {
        validate: (text) => typeof text === 'string' && OFFSET.test(text) && Date.parse(text) >= 0,
        defaultMessage: () => '$property must be a time as RFC 3339 has it',
      },
    }),
  );

const DAY = { message: '$property must be a day of the calendar, as in 2026-11-30' };

/** RFC 3339 full-date, from 1900 on. */
export const IsDay = () =>
  applyDecorators(
    ApiProperty({ format: 'date' }),
    Matches(/^(19|2\d)\d\d-\d\d-\d\d$/, DAY),
    IsISO8601({ strict: true }, DAY), // knows how long a month is
  );
