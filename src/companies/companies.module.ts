import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { ChangesModule } from '../changes/changes.module.js';
import { KeyringModule } from '../keyring/keyring.module.js';
import { CompaniesController } from './companies.controller.js';
import { Companies } from './companies.service.js';
import { Company } from './company.entity.js';
import { Employee } from './employee.entity.js';
import { EmployeesController } from './employees.controller.js';
import { Employees } from './employees.service.js';

/** Owns companies and their employees. Refuses to know how its callers authenticated. */
@Module({
  imports: [TypeOrmModule.forFeature([Company, Employee]), ChangesModule, KeyringModule],
  controllers: [CompaniesController, EmployeesController],
  providers: [Companies, Employees],
})
export class CompaniesModule {}
