import { applyDecorators } from '@nestjs/common';
import { IsString, Matches, ValidateIf } from 'class-validator';

/** May be left out; null is a value like any other, which the field's own rules refuse. (`IsOptional` would let it through.) */
export const Omittable = () => ValidateIf((_, value) => value !== undefined);

/** A name that people read, in one line: 1 to 200 characters, not all of them blank, none of them a control character. */
export const IsDisplayName = () =>
  applyDecorators(
    IsString(),
    Matches(/^(?=.*\S)[^\p{Cc}\p{Cs}\u2028\u2029]{1,200}$/u, {
      message: '$property must be 1 to 200 printable characters',
    }),
  );
