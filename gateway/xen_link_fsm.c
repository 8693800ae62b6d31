/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/xen_link_fsm.h"

#define FSM_DEF    "gateway/xen_link_fsm.def"
#define FSM_NAME   xen_link
#define FSM_PREFIX XEN_LINK
#include "vchan-transport/fsm_define.inc"
