package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hamba/avro/v2"
	"github.com/hamba/avro/v2/registry"
)

// The events. `avrogen` of hamba/avro writes such structs from .avsc files.

type MoneyPaidIn struct {
	Cents int64 `avro:"cents"`
}

type MoneyWithdrawn struct {
	Cents int64 `avro:"cents"`
}

type TransferSent struct {
	Cents int64  `avro:"cents"`
	To    string `avro:"to"`
}

type TransferReceived struct {
	Cents int64  `avro:"cents"`
	From  string `avro:"from"`
}

// By the full name of the Avro record, which the writer's schema says.
var types = map[string]func() any{
	"bank.bank_account.MoneyPaidIn":      func() any { return new(MoneyPaidIn) },
	"bank.bank_account.MoneyWithdrawn":   func() any { return new(MoneyWithdrawn) },
	"bank.bank_account.TransferSent":     func() any { return new(TransferSent) },
	"bank.bank_account.TransferReceived": func() any { return new(TransferReceived) },
}

type last struct {
	version int64
	id      string
}

type model struct {
	registry *registry.Client
	last     map[string]last
	cents    map[string]int64
}

func newModel(url string) *model {
	client, err := registry.NewClient(url)
	if err != nil {
		panic(err)
	}
	return &model{registry: client, last: map[string]last{}, cents: map[string]int64{}}
}

// isNew is the version filter of docs/topics.md.
func (m *model) isNew(stream string, version, previous int64, id string) (bool, error) {
	known, ok := m.last[stream]
	if !ok {
		known.version = -1
	}
	switch {
	case version == known.version && id != known.id:
		return false, fmt.Errorf("fork: %s version %d: %s was applied, %s came", stream, version, known.id, id)
	case previous > known.version:
		return false, fmt.Errorf("gap: %s version %d is missing, %d came", stream, known.version+1, version)
	case version <= known.version:
		return false, nil
	}
	m.last[stream] = last{version, id}
	return true, nil
}

func (m *model) apply(stream string, value []byte) error {
	event, err := m.decode(value)
	if err != nil {
		return err
	}
	switch event := event.(type) {
	case *MoneyPaidIn:
		m.cents[stream] += event.Cents
	case *MoneyWithdrawn:
		m.cents[stream] -= event.Cents
	case *TransferSent:
		m.cents[stream] -= event.Cents
	case *TransferReceived:
		m.cents[stream] += event.Cents
	default:
		m.cents[stream] += 0
	}
	return nil
}

// decode reads a zero byte, the id of the writer's schema in four bytes, and the event. The client keeps schemas it has asked for.
func (m *model) decode(value []byte) (any, error) {
	if len(value) < 5 || value[0] != 0 {
		return nil, errors.New("the value does not begin with a schema's id")
	}
	schema, err := m.registry.GetSchema(context.Background(), int(binary.BigEndian.Uint32(value[1:5])))
	if err != nil {
		return nil, err
	}
	make, ok := types[schema.(avro.NamedSchema).FullName()]
	if !ok {
		// A type that this consumer does not know.
		return nil, nil
	}
	event := make()
	return event, avro.Unmarshal(schema, value[5:], event)
}
