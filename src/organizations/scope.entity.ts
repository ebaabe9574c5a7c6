import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A permission by name, and the sentence that a consent page shows for it. Never renamed, never deleted. */
@Entity('scope')
export class Scope {
  @PrimaryColumn({ type: 'text', primaryKeyConstraintName: 'scope_pkey' })
  name: string;

  @Column({ type: 'text' })
  description: string;

  @Column({ name: 'built_in', type: 'boolean', default: false })
  builtIn: boolean;

  @Column({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;
}
