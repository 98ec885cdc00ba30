/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * operations.h - the handlers of all commands, for the table of operations.c
 *
 * A handler ends its command, now or later, through one of the functions of sense.c or
 * scsi_reply(). What its row says has been checked. @command->port is NULL only in those with
 * NO_UNIT.
 */
#pragma once

struct scsi_command;

/* inquiry.c */
void scsi_inquiry(struct scsi_command *command);
void scsi_report_luns(struct scsi_command *command);
void scsi_test_unit_ready(struct scsi_command *command);
void scsi_request_sense(struct scsi_command *command);
void scsi_send_diagnostic(struct scsi_command *command);

/* operations.c */
void scsi_report_operations(struct scsi_command *command);
void scsi_report_task_functions(struct scsi_command *command);

/* mode.c */
void scsi_mode_sense(struct scsi_command *command);
void scsi_mode_select(struct scsi_command *command);

/* block.c */
void scsi_read(struct scsi_command *command);
void scsi_write(struct scsi_command *command);
void scsi_synchronize_cache(struct scsi_command *command);
void scsi_prefetch(struct scsi_command *command);
void scsi_read_capacity_10(struct scsi_command *command);
void scsi_read_capacity_16(struct scsi_command *command);

/* verify.c */
void scsi_verify(struct scsi_command *command);
void scsi_write_and_verify(struct scsi_command *command);
void scsi_compare_and_write(struct scsi_command *command);

/* space.c */
void scsi_unmap(struct scsi_command *command);
void scsi_write_same(struct scsi_command *command);
void scsi_get_lba_status(struct scsi_command *command);

/* reservation.c */
void scsi_reserve(struct scsi_command *command);
void scsi_release(struct scsi_command *command);
void scsi_reserve_in(struct scsi_command *command);
void scsi_reserve_out(struct scsi_command *command);

/* cdrom.c */
void scsi_start_stop(struct scsi_command *command);
void scsi_prevent_allow(struct scsi_command *command);
void scsi_read_toc(struct scsi_command *command);
void scsi_get_configuration(struct scsi_command *command);
void scsi_get_event_status(struct scsi_command *command);
void scsi_read_disc_information(struct scsi_command *command);
void scsi_set_cd_speed(struct scsi_command *command);
void scsi_mechanism_status(struct scsi_command *command);
void scsi_read_cd(struct scsi_command *command);
