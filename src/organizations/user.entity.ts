import { Column, Entity, PrimaryColumn, Unique } from 'typeorm';

/** E-mail addresses are compared in this form: nobody means two mailboxes by two spellings of one. */
export const normalizeEmail = (text: string) => text.trim().normalize('NFC').toLowerCase();

/** RFC 5321 §4.5.3.1.3, less the angle brackets. */
export const MAX_EMAIL_LENGTH = 254;

/** A person, once on the platform, whatever organizations they are a member of. */
@Entity('user')
@Unique('user_email_key', ['email'])
export class User {
  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'user_pkey' })
  id: string;

  /** Normalized by {@link normalizeEmail}. */
  @Column({ type: 'text' })
  email: string;

  @Column({ type: 'text' })
  name: string;

  /** Null: cannot sign in by password. */
  @Column({ name: 'password_hash', type: 'text', nullable: true, select: false })
  passwordHash: string | null;

  @Column({ name: 'password_changed_at', type: 'timestamptz', nullable: true })
  passwordChangedAt: Date | null;

  /** The password was printed somewhere: it is good for choosing another one, and nothing else. */
  @Column({ name: 'must_change_password', type: 'boolean', default: false })
  mustChangePassword: boolean;

  @Column({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;
}
