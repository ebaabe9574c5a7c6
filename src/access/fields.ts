import { applyDecorators } from '@nestjs/common';
import { ApiProperty } from '@nestjs/swagger';
import { IsISO8601, IsString, Matches, ValidateBy, ValidateIf } from 'class-validator';

/** May be left out; null is a value like any other, which the field's own rules refuse. (`IsOptional` would let it through.) */
export const Omittable = () => ValidateIf((_, value) => value !== undefined);

/** A name that people read, in one line: 1 to 200 characters, not all of them blank, none of them a control character. */
export const IsDisplayName = () =>
  applyDecorators(
    ApiProperty({ minLength: 1, maxLength: 200 }), // the documentation sees no rule within another decorator
    IsString(),
    Matches(/^(?=.*\S)[^\p{Cc}\p{Cs}\u2028\u2029]{1,200}$/u, {
      message: '$property must be 1 to 200 printable characters',
    }),
  );

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
