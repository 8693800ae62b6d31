/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names.h - what vendors, products and classes are called, by the list usb.ids
 * where the system has one (package usb.ids; the stock usbip reads the same).
 */
#ifndef NAMES_H
#define NAMES_H

#include <stdint.h>

#define NAMES_BYTES 192

/* "Logitech, Inc. : Optical Mouse (046d:c077)" */
void names_product(char ret_text[NAMES_BYTES], uint16_t vendor,
		   uint16_t product);

/* "Mass Storage / SCSI / Bulk-Only (08/06/50)" */
void names_class(char ret_text[NAMES_BYTES], uint8_t class, uint8_t subclass,
		 uint8_t protocol);

#endif
